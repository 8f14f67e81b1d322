/** The vault in a real S3 server. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import {
  CreateBucketCommand,
  DeleteObjectCommand,
  ListObjectVersionsCommand,
  PutObjectCommand,
  PutObjectLegalHoldCommand,
  PutObjectLockConfigurationCommand,
  S3Client,
} from '@aws-sdk/client-s3'
import { systemClock } from '#base/system/clock.ts'
import type { S3Address } from '#vault/s3/requests.ts'
import { createS3Store } from '#vault/s3/s3-store.ts'
import { storeContract } from '#vault/store.contract.ts'
import { openVault } from '#vault/vault.ts'
import { PIECE_BYTES } from './backup-lab/content.ts'
import { SiteProcess } from './backup-lab/site-process.ts'
import { ACCESS_KEY, missingPrograms, SECRET_KEY, startGateway } from './vault-ceph.ts'
import {
  assertRestores,
  assertWhole,
  backUp,
  BLOCK,
  changeBlocks,
  CHEAP,
  deps,
  keysOf,
  makeImage,
  newVault,
  randomFrom,
  SECRET,
} from './vault-kit.ts'

const reason = missingPrograms()
if (reason !== undefined) {
  test('the vault in a real S3 server', { skip: reason }, () => undefined)
} else {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-s3-'))
  const server = await startGateway(directory)
  const credentials = { accessKeyId: ACCESS_KEY, secretAccessKey: SECRET_KEY }
  const client = new S3Client({
    region: 'us-east-1',
    endpoint: server.endpoint,
    forcePathStyle: true,
    credentials,
  })
  after(async () => {
    client.destroy()
    await server.stop()
    await rm(directory, { recursive: true, force: true })
  })
  await client.send(new CreateBucketCommand({ Bucket: 'vaults' }))
  await client.send(new CreateBucketCommand({ Bucket: 'locked', ObjectLockEnabledForBucket: true }))
  let count = 0
  const store = (prefix = `p${count++}`, more: Partial<S3Address> = {}) =>
    createS3Store(
      {
        bucket: 'vaults',
        prefix,
        region: 'us-east-1',
        endpoint: server.endpoint,
        ...credentials,
        ...more,
      },
      { clock: systemClock },
    )
  storeContract('S3', async () => store())
  storeContract('S3 with object lock', async () =>
    store(undefined, { bucket: 'locked', objectLock: true }),
  )

  // Each has keys of its own, and waits for the server more than it computes.
  describe('a real S3 server', { concurrency: 3 }, () => {
    test('S3: a list of more keys than a page has names each of them once, and parts become one object', async () => {
      const keys = Array.from({ length: 1005 }, (_, i) => `index/${String(i).padStart(32, '0')}`)
      for (const more of [{}, { bucket: 'locked', objectLock: true }]) {
        const one = store(undefined, { ...more, partsAbove: 1024 * 1024 })
        if (!('bucket' in more)) {
          const large = Buffer.alloc(17 * 1024 * 1024, 'large')
          assert.equal(await one.put('packs/aa/large', large, { ifAbsent: true }), true)
          assert.equal(await one.put('packs/aa/large', large, { ifAbsent: true }), false)
          assert.ok((await one.get('packs/aa/large')).equals(large))
          assert.deepEqual(await one.uploads?.(), [])
        }
        const left = keys.slice(0, 'bucket' in more ? 20 : keys.length)
        const work = async () => {
          for (let key = left.pop(); key !== undefined; key = left.pop()) {
            await one.put(key, Buffer.from(key))
          }
        }
        await Promise.all(Array.from({ length: 24 }, work))
        const listed = await keysOf(one, 'index/')
        assert.deepEqual(listed, keys.slice(0, 'bucket' in more ? 20 : keys.length))
        one.close()
      }
    })

    test('a vault in S3 takes backups, deletions and collections, and restores byte for byte', async () => {
      const vault = await newVault(store('life'))
      const random = randomFrom(31)
      const image = makeImage(40 * BLOCK, random)
      const first = await backUp(vault, image, { packBytes: 1024 * 1024 })
      const blocks = changeBlocks(image, 0.5, random)
      const second = await backUp(vault, image, { parent: first.id, blocks })
      await vault.forget(first.id)
      const result = await vault.collect({ graceMs: 0, usedMin: 0.9 })
      assert.equal(result.checkpointsDeleted, 1)
      assert.ok(result.packsRewritten + result.packsDeleted > 0)
      const again = await openVault(deps(store('life')), SECRET)
      await assertRestores(again, second)
      await assertWhole(again)
    })

    test('with object lock, not even the owner of the bucket can delete or hide what a locked checkpoint needs, also after a collection has moved it', async () => {
      const vault = await newVault(store('v', { bucket: 'locked', objectLock: true }))
      const random = randomFrom(32)
      const image = makeImage(20 * BLOCK, random)
      const first = await backUp(vault, image, { packBytes: 512 * 1024 })
      const blocks = changeBlocks(image, 0.7, random)
      const done = await backUp(vault, image, { parent: first.id, blocks, packBytes: 512 * 1024 })
      await vault.lock(done.id, Date.now() + 3_600_000)
      await vault.forget(first.id)
      // What is used in part is moved. The old packs are retained as well: they stay, are told, and are asked for once in each collection.
      for (let i = 0; i < 2; i++) {
        const { checkpointsDeleted, retained } = await vault.collect({ graceMs: 0, usedMin: 0.95 })
        assert.equal(checkpointsDeleted, i === 0 ? 1 : 0)
        assert.ok(retained.length > 0 && retained.every((key) => key.startsWith('packs/')))
        assert.equal(new Set(retained).size, retained.length)
      }
      const { Versions = [] } = await client.send(
        new ListObjectVersionsCommand({ Bucket: 'locked', Prefix: 'v/' }),
      )
      const needed = Versions.filter(({ Key = '' }) =>
        /\/(packs|moves|manifests|keys|keyring|locks)\/|vault\.json$/.test(Key),
      )
      assert.ok(needed.some(({ Key = '' }) => Key.includes('/moves/')))
      const attack = async ({ Key, VersionId }: (typeof needed)[number]) => {
        await assert.rejects(
          client.send(new DeleteObjectCommand({ Bucket: 'locked', Key, VersionId })),
          /AccessDenied|forbidden/i,
          `${Key} stays`,
        )
        await client.send(new DeleteObjectCommand({ Bucket: 'locked', Key }))
        if (Key?.includes('a') === true) {
          await client.send(new PutObjectCommand({ Bucket: 'locked', Key, Body: 'nothing' }))
        }
      }
      await Promise.all(needed.map(attack))
      const again = await openVault(
        deps(store('v', { bucket: 'locked', objectLock: true })),
        SECRET,
      )
      await assertRestores(again, done)
      await assertWhole(again)
      await assert.rejects(vault.forget(done.id), /CHECKPOINT_LOCKED/)
      const [slot] = await vault.keys()
      await vault.addKey({ kind: 'passphrase', passphrase: 'second' }, { argon: CHEAP })
      await assert.rejects(
        vault.removeKey(slot?.id ?? ''),
        /OBJECT_RETAINED: deleting keys\/.* until/,
      )
    })

    test('with object lock, what has a legal hold is told, and a collection goes on with the rest', async () => {
      const vault = await newVault(store('held', { bucket: 'locked', objectLock: true }))
      const made = await backUp(vault, makeImage(12 * BLOCK, randomFrom(33)), {
        packBytes: 100_000,
      })
      const packs = await keysOf(vault.store, 'packs/')
      const [pack = '', ...others] = packs
      const [index = ''] = await keysOf(vault.store, 'index/')
      assert.ok(others.length > 0)
      const hold = (key: string, Status: 'ON' | 'OFF') =>
        client.send(
          new PutObjectLegalHoldCommand({
            Bucket: 'locked',
            Key: `held/${key}`,
            LegalHold: { Status },
          }),
        )
      await hold(pack, 'ON')
      await hold(index, 'ON')
      await vault.forget(made.id)
      const collected = async () => {
        const { held, retained, packsDeleted } = await vault.collect({ graceMs: 0 })
        return [held, retained, packsDeleted]
      }
      assert.deepEqual(await collected(), [[pack], [], others.length])
      assert.deepEqual(await keysOf(vault.store, 'packs/'), [pack])
      await hold(pack, 'OFF')
      // The index of packs that are all gone is not needed either.
      assert.deepEqual(await collected(), [[index], [], 1])
      await hold(index, 'OFF')
      assert.deepEqual(await collected(), [[], [], 0])
      for (const prefix of ['packs/', 'index/', 'condemned/']) {
        assert.deepEqual(await keysOf(vault.store, prefix), [], prefix)
      }
    })

    test('a bucket that cannot keep locks, or would keep everything, is refused before anything is stored', async () => {
      await assert.rejects(
        newVault(store('no-lock', { objectLock: true })),
        /VAULT_STORE_UNFIT: .*without object lock/,
      )
      await client.send(
        new CreateBucketCommand({ Bucket: 'keeps-all', ObjectLockEnabledForBucket: true }),
      )
      // This server looks at no condition where it keeps versions.
      await assert.rejects(
        newVault(store('v', { bucket: 'keeps-all' })),
        /VAULT_STORE_UNFIT: .*versions/,
      )
      await client.send(
        new PutObjectLockConfigurationCommand({
          Bucket: 'keeps-all',
          ObjectLockConfiguration: {
            ObjectLockEnabled: 'Enabled',
            Rule: { DefaultRetention: { Mode: 'GOVERNANCE', Days: 1 } },
          },
        }),
      )
      await assert.rejects(
        newVault(store('v', { bucket: 'keeps-all', objectLock: true })),
        /VAULT_STORE_UNFIT: .*by default/,
      )
      const { Versions = [] } = await client.send(
        new ListObjectVersionsCommand({ Bucket: 'keeps-all' }),
      )
      assert.deepEqual([...new Set(Versions.map(({ Key }) => Key))], ['v/tmp/condition'])
    })

    test('an agent that is killed goes on with a backup to the bucket, and restores from it', async () => {
      const site = new SiteProcess(join(directory, 'site'), undefined, {
        LAB_VAULT: 's3://vaults/agent',
        AWS_ACCESS_KEY_ID: ACCESS_KEY,
        AWS_SECRET_ACCESS_KEY: SECRET_KEY,
        AWS_ENDPOINT_URL: server.endpoint,
      })
      const pieces = 96
      try {
        await site.start()
        for (const volume of ['data', 'new']) {
          await site.ask('lab.volume', { volume, size: pieces * PIECE_BYTES })
        }
        await site.ask('lab.fill', { volume: 'data', from: 0, to: pieces, seed: 1 })
        const backup = {
          backup: randomUUID(),
          volumes: ['data'],
          names: ['data'],
          parent: null,
          labels: {},
          rate_bytes: 6 * 1024 * 1024,
        }
        await site.until('backup.start', backup, (info) => info.read_bytes > 2 * 1024 * 1024)
        await site.kill()
        await site.start()
        const made = await site.ended('backup.start', backup)
        assert.equal(made.state, 'done', made.reason ?? '')
        const restored = await site.ended('restore.start', {
          restore: randomUUID(),
          checkpoint: made.checkpoint ?? '',
          volumes: [{ name: 'data', volume: 'new', pair: null, blank: true }],
          rate_bytes: 0,
        })
        assert.equal(restored.state, 'done', restored.reason ?? '')
        assert.deepEqual(
          await site.ask('lab.digest', { volume: 'new' }),
          await site.ask('lab.digest', { volume: 'data' }),
        )
        const verified = await site.ended('vault.verify', { verify: randomUUID(), data: true })
        assert.deepEqual([verified.state, verified.damages], ['done', []])
      } finally {
        await site.kill()
      }
    })
  })
}
