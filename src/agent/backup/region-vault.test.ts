/** The vault that the agents of a region share: made once. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { VAULT_GONE } from './faults.ts'
import { regionVault } from './region-vault.ts'

async function withAgents(
  act: (at: (agent: string) => ReturnType<typeof regionVault>, directory: string) => Promise<void>,
): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-region-vault-'))
  try {
    const keyFile = join(directory, 'key')
    await writeFile(keyFile, randomBytes(32))
    const at = (agent: string) =>
      regionVault({
        place: join(directory, 'mount', 'vault'),
        keyFile,
        usedFile: join(directory, `${agent}.json`),
        env: {},
        clock: systemClock,
        log: createLog('test', 'silent'),
      })
    await act(at, directory)
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

const gone = (error: unknown) => isFault(error, VAULT_GONE)

test('a vault that was used and is not there, as its disk is not mounted, is waited for and not made anew', () =>
  withAgents(async (at, directory) => {
    const first = await at('a').open()
    const [mount, away] = [join(directory, 'mount'), join(directory, 'away')]
    await rename(mount, away)
    await assert.rejects(at('a').open(), gone)
    assert.equal(existsSync(mount), false, 'nothing was made there')
    await rename(away, mount)
    const again = await at('a').open()
    assert.equal(again.header.id, first.header.id)
  }))

test('another vault at the place of one that was used is not taken for it', () =>
  withAgents(async (at, directory) => {
    await at('a').open()
    await rm(join(directory, 'mount'), { recursive: true })
    // An agent that has used none makes one.
    const other = await at('b').open()
    await assert.rejects(at('a').open(), gone)
    // An operator says that the old one is gone for good.
    await rm(join(directory, 'a.json'))
    assert.equal((await at('a').open()).header.id, other.header.id)
  }))
