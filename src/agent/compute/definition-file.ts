import { mkdir, open, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import Type, { type Static } from 'typebox'
import { Compile } from 'typebox/compile'
import { readTextIfPresent, writeFileWhole } from '#base/system/files.ts'
import { ServerDefinition } from '#wire/site/servers.ts'

/* What an agent knows about its servers for good: one folder per server, `definition.json` in it, replaced as a whole and synced before
 * anything is done under it. docs/formats/server-definition.md has the fields.
 *
 * A server is removed by renaming its folder, which is one step; what is left of it then is deleted now or at the next start.
 */

export const ServerRecord = Type.Object({
  version: Type.Literal(1),
  definition: ServerDefinition,
  /** What was asked for last. A guest that powered itself off, or was stopped because it may not run here, is asked to be off. */
  wanted: Type.Union([Type.Literal('running'), Type.Literal('off')]),
  /** How often the guest was started, counted before each start. */
  starts: Type.Integer({ minimum: 0 }),
  /** The last reboot asked for; it is done when the guest was started since. */
  reboot: Type.Union([
    Type.Null(),
    Type.Object({ request: Type.String(), after_starts: Type.Integer() }),
  ]),
  /** Wall clock, ms, of the last start or end that was noted. */
  since_ms: Type.Number(),
  /** Why it is off although somebody wanted it to run. */
  reason: Type.Union([Type.String(), Type.Null()]),
})
export type ServerRecord = Static<typeof ServerRecord>

/** Of a server that was never started. `since_ms`: wall clock. */
export const newRecord = (definition: ServerDefinition, since_ms: number): ServerRecord => ({
  version: 1,
  definition,
  wanted: 'off',
  starts: 0,
  reboot: null,
  since_ms,
  reason: null,
})

const records = Compile(ServerRecord)
const FILE = 'definition.json'
const REMOVED = '.removed'

export interface LoadedServers {
  readonly records: readonly ServerRecord[]
  /** Servers whose file cannot be read. Their guests are left alone. */
  readonly unreadable: readonly string[]
}

export class DefinitionFiles {
  readonly #directory: string

  /** `directory` exists. */
  constructor(directory: string) {
    this.#directory = directory
  }

  folder(server: string): string {
    return join(this.#directory, server)
  }

  async load(): Promise<LoadedServers> {
    const found: ServerRecord[] = []
    const unreadable: string[] = []
    for (const { name } of await readdir(this.#directory, { withFileTypes: true })) {
      if (name.endsWith(REMOVED)) {
        await rm(join(this.#directory, name), { recursive: true, force: true })
        continue
      }
      const text = await readTextIfPresent(join(this.#directory, name, FILE))
      // Died between making the folder and the file: the server was never defined.
      if (text === undefined) continue
      const record = parse(text)
      if (record?.definition.server === name) found.push(record)
      else unreadable.push(name)
    }
    return { records: found, unreadable }
  }

  /** Durable when it resolves. */
  async save(record: ServerRecord): Promise<void> {
    const folder = this.folder(record.definition.server)
    const made = await mkdir(folder, { recursive: true, mode: 0o700 })
    await writeFileWhole(join(folder, FILE), `${JSON.stringify(record, null, 2)}\n`, 0o600)
    if (made !== undefined) await this.#sync()
  }

  /** Durable when it resolves; unknown: no change. */
  async remove(server: string): Promise<void> {
    const grave = `${this.folder(server)}${REMOVED}`
    await rm(grave, { recursive: true, force: true })
    try {
      await rename(this.folder(server), grave)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
      throw error
    }
    await this.#sync()
    await rm(grave, { recursive: true, force: true })
  }

  async #sync(): Promise<void> {
    const handle = await open(this.#directory, 'r')
    try {
      await handle.sync()
    } finally {
      await handle.close()
    }
  }
}

function parse(text: string): ServerRecord | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return records.Check(value) ? value : undefined
  } catch {
    return undefined // not JSON: unreadable, as its caller reports
  }
}
