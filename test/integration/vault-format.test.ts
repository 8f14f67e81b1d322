/** Vaults that earlier releases have written are read, and gone on with. The fixture holds incrementals, a rotated data key, rewritten packs and a lock. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { cp, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { openDirStore } from '#vault/dir/dir-store.ts'
import { openVault } from '#vault/vault.ts'
import { assertWhole, deps, keysOf, restoreImage, withDirectory } from './vault-kit.ts'

const FIXTURE = join(import.meta.dirname, '../fixtures/formats/vault-1')
const SECRETS = [
  { kind: 'passphrase', passphrase: 'a fixture has no secrets' },
  { kind: 'key-file', content: Buffer.alloc(32, 0x5a) },
] as const

test('a vault of format 1 is opened by passphrase and key file, verified, restored and continued', () =>
  withDirectory(async (parent) => {
    const directory = join(parent, 'vault')
    await cp(join(FIXTURE, 'vault'), directory, { recursive: true })
    const sums = JSON.parse(await readFile(join(FIXTURE, 'checkpoints.json'), 'utf8')) as Record<
      string,
      string
    >
    assert.equal(Object.keys(sums).length, 2)
    for (const secret of SECRETS) {
      const vault = await openVault(deps(await openDirStore(directory)), secret)
      assert.ok((await keysOf(vault.store, 'moves/')).length > 0)
      const listed = (await vault.checkpoints()).map(({ id }) => id).toSorted()
      assert.deepEqual(listed, Object.keys(sums).toSorted())
      for (const [id, sha256] of Object.entries(sums)) {
        const image = await restoreImage(vault, id)
        assert.equal(createHash('sha256').update(image).digest('hex'), sha256)
      }
      await assertWhole(vault)
      assert.equal(
        (await vault.lockedUntil(listed.at(-1) ?? '')) + (await vault.lockedUntil(listed[0] ?? '')),
        Date.parse('2027-01-01'),
      )
    }
    const vault = await openVault(deps(await openDirStore(directory)), SECRETS[0])
    const base = (await vault.checkpoints()).at(-1)?.id ?? ''
    const image = await restoreImage(vault, base)
    image.fill(7, 8192, 12_288)
    const session = await vault.begin({ parent: base, threads: 1 })
    const writer = await session.openVolume({ id: 'vol', sizeBytes: image.length })
    await writer.write(8192, image.subarray(8192, 12_288))
    await writer.finish()
    const { id } = await session.commit()
    await vault.collect({ graceMs: 0, usedMin: 0.99 })
    assert.ok((await restoreImage(vault, id)).equals(image))
    await assertWhole(vault)
  }))
