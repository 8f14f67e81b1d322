/** Processes that back up and collect in one vault, killed at any moment. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { test } from 'node:test'
import {
  assertWhole,
  dirVault,
  randomFrom,
  reopen,
  restoreImage,
  withDirectory,
} from './vault-kit.ts'

const KILLS = 10

interface Child {
  readonly process: ChildProcess
  readonly ended: Promise<unknown>
  errors(): string
}

async function start(directory: string, seed: number): Promise<Child> {
  const child = spawn(
    process.execPath,
    [join(import.meta.dirname, 'vault-crash-child.ts'), directory, String(seed)],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  )
  let errors = ''
  child.stderr.on('data', (piece: Buffer) => (errors += piece.toString()))
  const ended = once(child, 'exit')
  await Promise.race([once(child.stdout, 'data'), ended])
  child.stdout.resume()
  return { process: child, ended, errors: () => errors }
}

test('backups and collections of two processes, killed again and again, leave a vault that is whole', () =>
  withDirectory(async (directory) => {
    await dirVault(directory)
    const children: Child[] = []
    try {
      await torment(directory, children)
    } finally {
      for (const child of children) {
        child.process.kill('SIGKILL')
        await child.ended
      }
    }
    const judged = await judge(directory, false)
    assert.ok(judged > 0, 'there was something to judge')
    const vault = await reopen(directory)
    await assertWhole(vault)
    // And nothing is stuck: once the dead are taken for dead, all space comes back.
    for (const { id } of await vault.checkpoints()) await vault.forget(id)
    await wait(20)
    await vault.collect({ graceMs: 0, leaseExpiryMs: 0 })
    const left: string[] = []
    for await (const { key } of vault.store.list('packs/')) left.push(key)
    assert.deepEqual(left, [])
  }))

async function torment(directory: string, children: Child[]): Promise<void> {
  const random = randomFrom(11)
  for (const seed of [1, 2]) children.push(await start(directory, seed))
  for (let kill = 0; kill < KILLS; kill++) {
    await wait(100 + random() * 900)
    const victim = kill % 2
    const child = children[victim] as Child
    assert.equal(child.process.exitCode, null, child.errors())
    child.process.kill('SIGKILL')
    await child.ended
    // The other one goes on meanwhile, so a checkpoint may be deleted and its space collected while it is being read.
    if (kill % 5 === 4) await judge(directory, true)
    children[victim] = await start(directory, 100 + kill)
  }
  for (const child of children) assert.equal(child.process.exitCode, null, child.errors())
}

async function judge(directory: string, othersRun: boolean): Promise<number> {
  const vault = await reopen(directory)
  let judged = 0
  for (const manifest of await vault.checkpoints()) {
    let image: Buffer
    try {
      image = await restoreImage(vault, manifest.id)
    } catch (error) {
      const listed = (await vault.checkpoints()).some(({ id }) => id === manifest.id)
      if (othersRun && !listed) continue
      throw error
    }
    const sha256 = createHash('sha256').update(image).digest('hex')
    assert.equal(sha256, manifest.labels['sha256'], `checkpoint ${manifest.id}`)
    judged++
  }
  return judged
}
