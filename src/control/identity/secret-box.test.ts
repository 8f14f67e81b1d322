import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { openSecretBox, SECRET_KEY_UNREADABLE, SECRET_KEY_WRONG, secretBox } from './secret-box.ts'

let directory = ''
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'holdfast-box-'))
})
after(async () => {
  await rm(directory, { recursive: true, force: true })
})

test('a secret comes back, differs every time it is sealed, and is bound to its name and key', () => {
  const box = secretBox(randomBytes(32))
  const sealed = box.seal('the secret', 'AK1')
  assert.equal(box.open(sealed, 'AK1'), 'the secret')
  assert.notEqual(box.seal('the secret', 'AK1'), sealed)
  assert.ok(!sealed.includes('secret'))
  const wrong = (error: unknown) => isFault(error, SECRET_KEY_WRONG)
  assert.throws(() => box.open(sealed, 'AK2'), wrong)
  assert.throws(() => secretBox(randomBytes(32)).open(sealed, 'AK1'), wrong)
  const [version, key, nonce, text = ''] = sealed.split(':')
  const flipped = text.startsWith('A') ? `B${text.slice(1)}` : `A${text.slice(1)}`
  for (const broken of [
    '',
    '1',
    `2:${key}:${nonce}:${text}`,
    [version, key, nonce, flipped].join(':'),
  ]) {
    assert.throws(() => box.open(broken, 'AK1'), wrong, broken)
  }
})

test('the key file is made once, for its owner only, and used from then on', async () => {
  const path = join(directory, 'deep', 'identity.key')
  const sealed = (await openSecretBox(path)).seal('s', 'n')
  assert.equal((await stat(path)).mode & 0o777, 0o600)
  assert.match(await readFile(path, 'utf8'), /^[0-9a-f]{64}\n$/)
  assert.equal((await openSecretBox(path)).open(sealed, 'n'), 's')
})

test('a damaged key file is an error and is not replaced', async () => {
  const path = join(directory, 'damaged.key')
  await writeFile(path, 'half of a key')
  await assert.rejects(openSecretBox(path), (error) => isFault(error, SECRET_KEY_UNREADABLE))
  assert.equal(await readFile(path, 'utf8'), 'half of a key')
})
