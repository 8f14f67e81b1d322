/**
 * The backups of one agent in a process of its own, to be killed:  site.ts DIRECTORY [PKI]
 * Takes commands as JSON lines on standard input, `{id, name, request}`, and answers each with `{id, answer}` or `{id, refusal}`. Besides the commands of
 * the agent, whose vault is LAB_VAULT or in its directory: `lab.volume` makes a volume, `lab.fill` writes it, `lab.digest` reads it.
 */
import { createHash } from 'node:crypto'
import { readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { BackupWorld } from '#agent/backup/backups.contract.ts'
import type { BackupCommandName } from '#agent/backup/commands.ts'
import { localDevice } from '#agent/nbd/local-device.ts'
import { NbdServer } from '#agent/nbd/server.ts'
import { guardedWrite } from '#agent/snapshots/snapshots.contract.ts'
import { isFault } from '#base/fault.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { pieceOf, PIECE_BYTES } from './content.ts'

export interface Asked {
  readonly id: number
  readonly name: string
  readonly request: Readonly<Record<string, unknown>>
}

async function main(directory: string, pki: string | undefined): Promise<void> {
  const read = (name: string) => readFileSync(join(pki ?? '', name), 'utf8')
  const vault = process.env['LAB_VAULT']
  const world = await BackupWorld.open(directory, {
    ...(vault === undefined ? {} : { vault }),
    ...(pki === undefined
      ? {}
      : { tls: { ca: read('ca.pem'), cert: read('part.pem'), key: read('part.key') } }),
  })
  const server = new NbdServer({
    exports: world.exports,
    log: createLog('test', 'silent'),
    clock: systemClock,
  })
  const serve = async (id: string) =>
    world.exports.serve(id, localDevice(await world.volumes.open(id)))
  for (const { id } of world.volumes.list()) await serve(id)
  await server.listenUnix(join(directory, 'nbd.sock'))

  async function carryOut({ name, request }: Asked): Promise<unknown> {
    const volume = String(request['volume'])
    switch (name) {
      case 'lab.volume':
        await world.volumes.create(volume, Number(request['size']), { mode: 'standalone' }, 'me')
        await serve(volume)
        return {}
      case 'lab.fill': {
        const open = await world.volumes.open(volume)
        const { from, to, seed } = request
        for (let piece = Number(from); piece < Number(to); piece++) {
          await guardedWrite(open, piece * PIECE_BYTES, pieceOf(Number(seed), piece))
        }
        return {}
      }
      case 'lab.digest': {
        const open = await world.volumes.open(volume)
        const bytes = Buffer.alloc(open.sizeBytes)
        await open.read(bytes, 0, bytes.length, 0)
        return { sha256: createHash('sha256').update(bytes).digest('hex') }
      }
      default:
        return await world.command(name as BackupCommandName, request as never)
    }
  }

  const say = (what: unknown) => void writeSync(1, `${JSON.stringify(what)}\n`)
  createInterface({ input: process.stdin }).on('line', (line) => {
    const asked = JSON.parse(line) as Asked
    const { id } = asked
    carryOut(asked).then(
      (answer) => say({ id, answer }),
      (error: unknown) =>
        say({ id, refusal: isFault(error) ? error.code : 'INTERNAL', text: String(error) }),
    )
  })
  say({ id: 0, answer: 'ready' })
}

await main(process.argv[2] ?? '', process.argv[3])
