/** `holdfast vault` as a program: everything from init to restore, without any server. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { BLOCK, changeBlocks, makeImage, randomFrom, withDirectory } from './vault-kit.ts'

interface Ran {
  readonly code: number
  readonly out: Buffer
  readonly err: string
}

function holdfast(env: Record<string, string>, ...args: string[]): Promise<Ran> {
  const main = join(import.meta.dirname, '../../src/main.ts')
  const options = { env: { ...process.env, ...env }, encoding: 'buffer' as const, maxBuffer: 1e9 }
  return new Promise((resolve) => {
    execFile(process.execPath, [main, 'vault', ...args], options, (error, out, err) => {
      const code = typeof error?.code === 'number' ? error.code : error === null ? 0 : 1
      resolve({ code, out, err: err.toString() })
    })
  })
}

test('a vault is made, filled, listed, verified, restored, locked and cleaned from the command line', () =>
  withDirectory(async (directory) => {
    const vault = join(directory, 'vault')
    const image = join(directory, 'disk.raw')
    const passphrase = join(directory, 'passphrase')
    const keyFile = join(directory, 'key')
    await writeFile(passphrase, 'correct horse\n')
    await writeFile(keyFile, Buffer.alloc(40, 9))
    const random = randomFrom(51)
    const first = makeImage(20 * BLOCK, random)
    await writeFile(image, first)
    const env = { HOLDFAST_VAULT: vault }
    const open = ['--passphrase-file', passphrase]
    const run = async (...args: string[]) => {
      const ran = await holdfast(env, ...args)
      assert.equal(ran.code, 0, ran.err)
      return ran
    }
    const json = async (...args: string[]) => {
      const { out } = await run(...args, '--json')
      return JSON.parse(out.toString().trim().split('\n').at(-1) ?? '') as Record<string, unknown>
    }
    assert.equal((await json('init', ...open))['event'], 'vault_made')
    const one = await json('backup', ...open, '--image', image, '--label', 'server=db1')
    const second = Buffer.from(first)
    const blocks = changeBlocks(second, 0.2, random)
    await writeFile(image, second)
    const changed = join(directory, 'changed.json')
    await writeFile(changed, JSON.stringify(blocks.map((block) => [block * BLOCK + 5, 10])))
    const two = await json(
      'backup',
      ...open,
      '--image',
      image,
      '--parent',
      'last',
      '--changed',
      changed,
    )
    assert.equal(two['parent'], one['id'])

    assert.match((await run('ls', ...open)).out.toString(), /server=db1/)
    assert.deepEqual((await json('show', ...open, String(two['id'])))['volumes'], [
      { id: 'disk.raw', size_bytes: 20 * BLOCK },
    ])
    const target = join(directory, 'restored')
    await run('restore', ...open, String(one['id']), '--to', target)
    assert.ok((await readFile(target)).equals(first))
    const refused = await holdfast(env, 'restore', ...open, String(two['id']), '--to', target)
    assert.equal(refused.code, 1)
    assert.match(refused.err, /The target exists/)
    assert.ok((await run('export', ...open, String(two['id']))).out.equals(second))
    const report = await json('verify', ...open, '--data')
    assert.deepEqual([report['checkpoints'], report['damage']], [2, []])

    await run('key', 'add', ...open, '--new-key-file', keyFile, '--label', 'spare')
    const { keys } = await json('key', 'list', '--key-file', keyFile)
    const slots = keys as { id: string; kind: string }[]
    const old = slots.find(({ kind }) => kind === 'passphrase')
    await run('key', 'remove', '--key-file', keyFile, old?.id ?? '')
    const locked = await holdfast(env, 'ls', ...open)
    assert.equal(locked.code, 1)
    assert.match(locked.err, /No key slot of the vault opens/)

    await run('lock', '--key-file', keyFile, String(one['id']), '--until', '2999-01-01T00:00:00Z')
    assert.equal((await holdfast(env, 'delete', '--key-file', keyFile, String(one['id']))).code, 1)
    await run('delete', '--key-file', keyFile, String(two['id']))
    const collected = await json('collect', '--key-file', keyFile, '--grace', '0')
    assert.equal(collected['checkpointsDeleted'], 1)
    await run('verify', '--key-file', keyFile, '--data')

    assert.equal((await holdfast({}, 'ls', ...open)).code, 2, 'no vault named')
    assert.equal((await holdfast(env, 'ls')).code, 2, 'no secret given')
    const nowhere = await holdfast({ HOLDFAST_VAULT: join(directory, 'no') }, 'ls', ...open)
    assert.match(nowhere.err, /There is no vault here/)
  }))
