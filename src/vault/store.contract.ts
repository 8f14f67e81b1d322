import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { OBJECT_MISSING } from './faults.ts'
import type { ListedObject, ObjectStore } from './object-store.ts'

/** What every store must do. `make` gives an empty one. */
export function storeContract(name: string, make: () => Promise<ObjectStore>): void {
  const listed = async (store: ObjectStore, prefix: string): Promise<ListedObject[]> => {
    const found: ListedObject[] = []
    for await (const object of store.list(prefix)) found.push(object)
    return found.toSorted((a, b) => (a.key < b.key ? -1 : 1))
  }

  test(`${name}: what was put is there, whole and in ranges`, async () => {
    const store = await make()
    const body = randomBytes(300_000)
    assert.equal(
      await store.put('packs/ab/one', [body.subarray(0, 7), body.subarray(7)], { ifAbsent: true }),
      true,
    )
    assert.deepEqual(await store.get('packs/ab/one'), body)
    assert.deepEqual(
      await store.get('packs/ab/one', { offset: 1000, length: 65_536 }),
      body.subarray(1000, 66_536),
    )
    assert.equal((await store.stat('packs/ab/one'))?.bytes, body.length)
    store.close()
  })

  test(`${name}: an object is put once, and of many who try one wins`, async () => {
    const store = await make()
    const bodies = Array.from({ length: 8 }, (_, i) => Buffer.from(`writer ${i}`))
    const results = await Promise.all(
      bodies.map((body) => store.put('manifests/m', body, { ifAbsent: true })),
    )
    assert.equal(results.filter(Boolean).length, 1)
    assert.deepEqual(await store.get('manifests/m'), bodies[results.indexOf(true)])
    assert.equal(await store.put('manifests/m', Buffer.from('later'), { ifAbsent: true }), false)
    store.close()
  })

  test(`${name}: a put without condition replaces and is newer`, async () => {
    const store = await make()
    await store.put('leases/l', Buffer.from('one'))
    const before = await store.stat('leases/l')
    await store.put('leases/l', Buffer.from('three'))
    assert.deepEqual(await store.get('leases/l'), Buffer.from('three'))
    const after = await store.stat('leases/l')
    assert.ok(after !== undefined && before !== undefined && after.modifiedMs >= before.modifiedMs)
    store.close()
  })

  test(`${name}: empty objects are objects`, async () => {
    const store = await make()
    assert.equal(await store.put('manifests/empty', new Uint8Array(0), { ifAbsent: true }), true)
    assert.equal((await store.get('manifests/empty')).length, 0)
    assert.equal((await store.stat('manifests/empty'))?.bytes, 0)
    assert.equal(
      await store.put('manifests/empty', Buffer.from('x'), { ifAbsent: true }),
      false,
      'empty ones count as present',
    )
    store.close()
  })

  test(`${name}: a list names all below a prefix and nothing else`, async () => {
    const store = await make()
    for (const key of ['packs/aa/1', 'packs/ab/2', 'packs/ab/3', 'packs-not/4', 'vault.json']) {
      await store.put(key, Buffer.from(key))
    }
    assert.deepEqual(
      (await listed(store, 'packs/')).map(({ key, bytes }) => [key, bytes]),
      [
        ['packs/aa/1', 10],
        ['packs/ab/2', 10],
        ['packs/ab/3', 10],
      ],
    )
    assert.equal((await listed(store, '')).length, 5)
    assert.deepEqual(await listed(store, 'nothing/'), [])
    store.close()
  })

  test(`${name}: what was deleted is gone, and deleting it again is fine`, async () => {
    const store = await make()
    await store.put('index/i', Buffer.from('x'))
    await store.delete('index/i')
    await store.delete('index/i')
    assert.equal(await store.stat('index/i'), undefined)
    await assert.rejects(store.get('index/i'), (error) => isFault(error, OBJECT_MISSING))
    await assert.rejects(store.get('index/i', { offset: 0, length: 1 }), (error) =>
      isFault(error, OBJECT_MISSING),
    )
    assert.equal(await store.put('index/i', Buffer.from('y'), { ifAbsent: true }), true)
    store.close()
  })

  test(`${name}: a range beyond the end is refused instead of shortened`, async () => {
    const store = await make()
    await store.put('packs/aa/short', Buffer.alloc(10))
    await assert.rejects(store.get('packs/aa/short', { offset: 8, length: 4 }))
    store.close()
  })

  test(`${name}: an object larger than one part arrives whole`, async () => {
    const store = await make()
    const body = randomBytes(17 * 1024 * 1024)
    assert.equal(await store.put('packs/aa/large', body, { ifAbsent: true }), true)
    assert.equal(await store.put('packs/aa/large', body, { ifAbsent: true }), false)
    assert.ok((await store.get('packs/aa/large')).equals(body))
    store.close()
  })
}
