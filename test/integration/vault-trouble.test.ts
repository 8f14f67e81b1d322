/** A vault in a bucket whose server is busy, out of reach, loses answers, or says what it must not say. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { BrokenInvariant } from '#base/assert.ts'
import type { Clock } from '#base/clock.ts'
import { type FaultKind, isFault } from '#base/fault.ts'
import {
  OBJECT_HELD,
  OBJECT_MISSING,
  OBJECT_RETAINED,
  VAULT_STORE_FAILED,
  VAULT_STORE_REFUSED,
  VAULT_STORE_UNFIT,
} from '#vault/faults.ts'
import { leaseKey } from '#vault/collect/leases.ts'
import { packKey } from '#vault/format/pack.ts'
import type { S3Address, S3Deps } from '#vault/s3/requests.ts'
import { createS3Store, type S3Store } from '#vault/s3/s3-store.ts'
import { openVault } from '#vault/vault.ts'
import { type Fate, type ScriptedBucket, scriptedBucket } from '../support/scripted-bucket.ts'
import {
  assertRestores,
  assertWhole,
  backUp,
  BLOCK,
  changeBlocks,
  deps,
  keysOf,
  makeImage,
  newVault,
  randomFrom,
  SECRET,
} from './vault-kit.ts'

/** Waits pass at once, and are counted. */
function hurriedClock(): Clock & { readonly waits: number[] } {
  const waits: number[] = []
  let ms = 0
  return {
    waits,
    wallMs: () => Date.now(),
    bootMs: () => ms,
    after(delayMs, fire) {
      waits.push(delayMs)
      ms += delayMs
      const handle = setImmediate(fire)
      return () => clearImmediate(handle)
    },
  }
}

const storeAt = (endpoint: string, more: Partial<S3Address & S3Deps> = {}): S3Store =>
  createS3Store(
    {
      bucket: 'vault',
      prefix: '',
      region: 'us-east-1',
      endpoint,
      accessKeyId: 'KEY',
      secretAccessKey: 'SECRET',
      ...more,
    },
    { clock: hurriedClock(), random: () => 0.5, ...more },
  )

async function withBucket(
  act: (bucket: ScriptedBucket, store: S3Store) => Promise<void>,
  more: Partial<S3Address & S3Deps> & { readonly pageKeys?: number } = {},
): Promise<void> {
  const bucket = await scriptedBucket(more.pageKeys)
  const store = storeAt(bucket.endpoint, more)
  try {
    await act(bucket, store)
  } finally {
    store.close()
    await bucket.close()
  }
}

/** Does this to the first `times` requests that `of` picks. */
function first(times: number, of: (asked: { method: string; key: string }) => boolean, fate: Fate) {
  let left = times
  return (asked: { method: string; key: string }): Fate =>
    of(asked) && left-- > 0 ? fate : 'serve'
}

const SLOW_DOWN = { status: 503, code: 'SlowDown' } as const
const faultOf = (kind: FaultKind, pattern: RegExp) => (error: unknown) =>
  isFault(error, kind) && pattern.test(error.message)

test('a vault lives through a server that fails, resets, loses and shortens every fourth answer, and nothing is lost', async () => {
  const fates: Fate[] = [
    SLOW_DOWN,
    { status: 500, code: 'InternalError' },
    { status: 429, code: 'TooManyRequests' },
    { status: 400, code: 'RequestTimeout' },
    'cut',
    'lost',
    'lost',
    'half',
  ]
  let rewritten = 0
  for (const seed of [1, 2, 3]) {
    const disturb = randomFrom(seed)
    let disturbed = 0
    await withBucket(
      async (bucket, store) => {
        bucket.script = () => {
          if (disturb() >= 0.25) return 'serve'
          disturbed++
          return fates[Math.floor(disturb() * fates.length)] ?? 'serve'
        }
        const random = randomFrom(40 + seed)
        const vault = await newVault(store)
        const image = makeImage(30 * BLOCK, random)
        const one = await backUp(vault, image, { packBytes: 200_000 })
        const blocks = changeBlocks(image, 0.5, random)
        const two = await backUp(vault, image, { parent: one.id, blocks, packBytes: 200_000 })
        await assertRestores(vault, one)
        await vault.forget(one.id)
        const collected = await vault.collect({ graceMs: 0, usedMin: 0.9 })
        assert.deepEqual([collected.checkpointsDeleted, collected.waitingFor], [1, []])
        rewritten += collected.packsRewritten
        const again = await openVault(deps(store), SECRET)
        await assertWhole(again)
        await assertRestores(again, two)
        for (const prefix of ['leases/', 'condemned/', 'waiting/']) {
          assert.deepEqual(await keysOf(store, prefix), [], prefix)
        }
        // Of an upload that was begun and whose answer was lost nobody knows until the next collection.
        bucket.script = () => 'serve'
        await again.collect({ graceMs: 0 })
        assert.deepEqual([bucket.objects.has('collector'), bucket.uploads.size], [false, 0])
      },
      { pageKeys: 3, partsAbove: 100_000 },
    )
    assert.ok(disturbed > 20, `seed ${seed}: ${disturbed} requests were disturbed`)
  }
  assert.ok(rewritten > 0, 'packs were rewritten')
})

for (const partsAbove of [1000, 10]) {
  const how = partsAbove === 10 ? 'in parts' : 'whole'
  test(`an object put ${how} whose answer was lost is one's own, and that of somebody else is not`, () =>
    withBucket(
      async (bucket, store) => {
        const body = randomBytes(100)
        const last = partsAbove === 10 ? 'POST' : 'PUT'
        const ends = ({ method, key }: { method: string; key: string }) =>
          method === last && key === 'moves/x'
        await store.check()
        // The second POST completes an upload; the first begins it.
        let skip = partsAbove === 10 ? 1 : 0
        const lose = first(1, (asked) => ends(asked) && skip-- <= 0, 'lost')
        bucket.script = lose
        assert.equal(await store.put('moves/x', body, { ifAbsent: true }), true)
        assert.deepEqual(bucket.objects.get('moves/x'), body)
        bucket.script = () => 'serve'
        assert.equal(await store.put('moves/x', randomBytes(100), { ifAbsent: true }), false)
        assert.equal(
          await store.put('moves/x', body, { ifAbsent: true }),
          false,
          'also with the same bytes',
        )
        bucket.objects.delete('moves/x')
        bucket.script = first(1, ends, 'cut')
        const put = store.put('moves/x', body, { ifAbsent: true })
        bucket.objects.set('moves/x', randomBytes(100))
        assert.equal(await put, false)
        assert.equal(bucket.uploads.size, 0)
      },
      { partsAbove },
    ))
}

test('a server that stays busy is asked at growing intervals for a minute, and then named', () =>
  withBucket(async (bucket) => {
    const clock = hurriedClock()
    const store = storeAt(bucket.endpoint, { clock })
    bucket.script = () => SLOW_DOWN
    await assert.rejects(
      store.get('vault.json'),
      faultOf(VAULT_STORE_FAILED, /reading vault\.json: SlowDown .*, after \d+ attempts/),
    )
    const total = clock.waits.reduce((sum, ms) => sum + ms, 0)
    assert.ok(total >= 60_000 && total < 75_000, `${total} ms`)
    assert.deepEqual(clock.waits.slice(0, 4), [150, 300, 600, 1200])
    assert.equal(Math.max(...clock.waits), 7500)
    store.close()
  }))

test('a server that was never reached is given up after three attempts, one that falls silent is not waited for', async () => {
  const nowhere = await scriptedBucket()
  await nowhere.close()
  const clock = hurriedClock()
  const lost = storeAt(nowhere.endpoint, { clock })
  await assert.rejects(lost.stat('vault.json'), faultOf(VAULT_STORE_FAILED, /ECONNREFUSED/))
  assert.equal(clock.waits.length, 2)
  await withBucket(
    async (bucket, store) => {
      bucket.objects.set('a', Buffer.from('a'))
      bucket.script = first(1, () => true, 'silence')
      assert.deepEqual(await store.get('a'), Buffer.from('a'))
    },
    { silenceMs: 100 },
  )
})

test('what a server refuses is told at once; a clock that is wrong is corrected', () =>
  withBucket(async (bucket, store) => {
    for (const [status, code] of [
      [403, 'AccessDenied'],
      [403, 'SignatureDoesNotMatch'],
      [400, 'ExpiredToken'],
    ] as const) {
      bucket.asked.length = 0
      bucket.script = () => ({ status, code })
      const refused = faultOf(VAULT_STORE_REFUSED, new RegExp(code))
      await assert.rejects(store.put('leases/l', Buffer.from('x')), refused)
      assert.equal(bucket.asked.length, 1, code)
    }
    const date = new Date(Date.now() + 3_600_000).toUTCString()
    const skewed = { status: 403, code: 'RequestTimeTooSkewed', headers: { date } }
    bucket.script = first(1, () => true, skewed)
    assert.equal(await store.put('leases/l', Buffer.from('x')), true)
  }))

test('a server that ignores conditions is found out before anything is stored there', () =>
  withBucket(async (bucket, store) => {
    bucket.script = () => 'unconditional'
    await assert.rejects(newVault(store), faultOf(VAULT_STORE_UNFIT, /If-None-Match/))
    assert.deepEqual([...bucket.objects.keys()], ['tmp/condition'])
    bucket.script = () => 'serve'
    await newVault(store)
    assert.ok(!(await keysOf(store)).includes('tmp/condition'), 'it is nothing of the vault')
  }))

test('an upload that is completed with an error in its answer is completed again, one that fails is aborted', () =>
  withBucket(
    async (bucket, store) => {
      const body = randomBytes(20 * 1024 * 1024)
      await store.check()
      let begun = false
      const completes = ({ method }: { method: string }) => {
        const is = method === 'POST' && begun
        begun ||= method === 'POST'
        return is
      }
      const body200 = '<?xml version="1.0"?><Error><Code>InternalError</Code></Error>'
      bucket.script = first(2, completes, { body: body200 })
      assert.equal(await store.put('packs/aa/x', body, { ifAbsent: true }), true)
      assert.ok(bucket.objects.get('packs/aa/x')?.equals(body))
      bucket.script = ({ query }) =>
        query.get('partNumber') === '2' ? { status: 403, code: 'AccessDenied' } : 'serve'
      const refused = faultOf(VAULT_STORE_REFUSED, /part 2 of packs\/aa\/y/)
      await assert.rejects(store.put('packs/aa/y', body, { ifAbsent: true }), refused)
      assert.deepEqual([bucket.uploads.size, bucket.objects.has('packs/aa/y')], [0, false])
    },
    { partsAbove: 1024 },
  ))

test('a list that is not whole is refused: what it lacks would pass for deleted', () =>
  withBucket(async (bucket, store) => {
    const list = (content: string) => ({
      body: `<?xml version="1.0"?><ListBucketResult>${content}</ListBucketResult>`,
    })
    const entry = '<Contents><Key>a/1</Key><LastModified>2026-01-01T00:00:00Z</LastModified>'
    for (const content of [
      '<IsTruncated>true</IsTruncated>',
      `<IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken>`,
      `<IsTruncated>false</IsTruncated>${entry}</Contents>`,
    ]) {
      bucket.script = () => list(content)
      await assert.rejects(keysOf(store, 'a/'), faultOf(VAULT_STORE_FAILED, /not whole/))
    }
    bucket.script = () => 'serve'
    await assert.rejects(store.get('a/1'), (error) => isFault(error, OBJECT_MISSING))
  }))

test('uploads that killed writers left behind are dropped by the collector, those of backups that run are not', () =>
  withBucket(async (bucket, store) => {
    const vault = await newVault(store)
    const { id } = await backUp(vault, makeImage(2 * BLOCK, randomFrom(3)))
    const running = '11111111-2222-4333-8444-555555555555'
    const pack = (session: string) =>
      packKey(Buffer.from(`${session.replaceAll('-', '').slice(0, 16)}${'ab'.repeat(8)}`, 'hex'))
    bucket.uploads.set('dead', { key: pack(id), parts: new Map() })
    bucket.uploads.set('alive', { key: pack(running), parts: new Map() })
    bucket.uploads.set('list', { key: `condemned/${'ab'.repeat(16)}`, parts: new Map() })
    // The vault's prefix is empty here, and the bucket has other users.
    const others = ['photos/holiday.mov', `other/${pack(id)}`, `packs/00/${'ab'.repeat(16)}`]
    for (const key of others) bucket.uploads.set(key, { key, parts: new Map() })
    await store.put(leaseKey(running), Buffer.from('{}'))
    await vault.collect({ graceMs: 0 })
    assert.deepEqual([...bucket.uploads.keys()], ['alive', 'list', ...others])
    await store.delete(leaseKey(running))
    await vault.collect({ graceMs: 0 })
    assert.deepEqual([...bucket.uploads.keys()], others)
  }))

const versionList = (keys: readonly string[]) => ({
  body: `<?xml version="1.0"?><ListVersionsResult><IsTruncated>false</IsTruncated>${keys
    .map(
      (key) =>
        `<Version><Key>${key}</Key><VersionId>v1</VersionId><LastModified>2026-01-01T00:00:00Z</LastModified><Size>3</Size></Version>`,
    )
    .join('')}</ListVersionsResult>`,
})

test('with object lock, a version that MinIO answers 400 for is retained or held when its head says so and as long, and the trial object is not listed', () =>
  withBucket(
    async (bucket, store) => {
      let headers: Record<string, string> = {
        'x-amz-object-lock-retain-until-date': '2030-01-01T00:00:00Z',
      }
      bucket.script = ({ method }) => {
        if (method === 'GET') return versionList(['packs/ab/x', 'tmp/condition'])
        if (method === 'HEAD') return { status: 200, code: '', headers }
        return { status: 400, code: 'InvalidRequest' }
      }
      assert.deepEqual(await keysOf(store), ['packs/ab/x'])
      await assert.rejects(store.delete('packs/ab/x'), faultOf(OBJECT_RETAINED, /until 2030/))
      headers['x-amz-object-lock-legal-hold'] = 'ON'
      await assert.rejects(store.delete('packs/ab/x'), faultOf(OBJECT_HELD, /legal hold/))
      // Neither a lock that was never set nor one that has ended is why.
      for (headers of [{}, { 'x-amz-object-lock-retain-until-date': '2020-01-01T00:00:00Z' }]) {
        await assert.rejects(
          store.delete('packs/ab/x'),
          faultOf(VAULT_STORE_FAILED, /InvalidRequest/),
        )
      }
    },
    { objectLock: true },
  ))

test('a mistake in the code is no trouble of the server: it comes through at once', () =>
  withBucket(async (bucket) => {
    const clock = hurriedClock()
    const store = storeAt(bucket.endpoint, { clock })
    await assert.rejects(store.get('../x'), BrokenInvariant)
    assert.deepEqual([clock.waits, bucket.asked], [[], []])
    store.close()
  }))
