import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { SharedSyncs } from './shared-syncs.ts'

function made() {
  const begun: { readonly end: () => void; readonly fail: (error: Error) => void }[] = []
  const syncs = new SharedSyncs(
    () => new Promise((resolve, reject) => begun.push({ end: resolve, fail: reject })),
  )
  /** Ends the sync of this number. */
  const end = async (index: number) => {
    begun[index]?.end()
    await turn()
  }
  return { syncs, begun, end }
}

const turn = () => new Promise((resolve) => setImmediate(resolve))

/** Whether the promise has been kept by now. */
const kept = async (promise: Promise<void>): Promise<boolean> =>
  Promise.race([promise.then(() => true), turn().then(() => false)])

test('whoever comes while a sync runs shares the next one', async () => {
  const { syncs, begun, end } = made()
  const first = syncs.flush()
  const later = [syncs.flush(), syncs.flush()]
  assert.equal(begun.length, 1)
  await end(0)
  await first
  assert.equal(begun.length, 2)
  assert.deepEqual(await Promise.all(later.map(kept)), [false, false])
  await end(1)
  await Promise.all(later)
  assert.equal(begun.length, 2)
})

test('a flush that finds nothing changed since the sync ahead of it began waits for that one, and the next flush has its own', async () => {
  const { syncs, begun, end } = made()
  syncs.changed()
  syncs.ahead()
  const flush = syncs.flush()
  assert.equal(await kept(flush), false)
  await end(0)
  await flush
  assert.equal(begun.length, 1)
  assert.equal(await kept(syncs.flush()), false)
  assert.equal(begun.length, 2)
})

test('a sync ahead that is over answers the flush at once', async () => {
  const { syncs, begun, end } = made()
  syncs.ahead()
  await end(0)
  assert.equal(await kept(syncs.flush()), true)
  assert.equal(begun.length, 1)
})

for (const over of [false, true]) {
  test(`what was changed after the sync ahead ${over ? 'was over' : 'had begun'} has a sync of its own`, async () => {
    const { syncs, begun, end } = made()
    syncs.ahead()
    if (over) await end(0)
    syncs.changed()
    const flush = syncs.flush()
    await end(0)
    assert.equal(await kept(flush), false)
    assert.equal(begun.length, 2)
    await end(1)
    await flush
  })
}

test('nothing is begun ahead while a sync runs, and a flush of then is not answered by it', async () => {
  const { syncs, begun, end } = made()
  const first = syncs.flush()
  syncs.changed()
  syncs.ahead()
  const second = syncs.flush()
  await end(0)
  await first
  assert.equal(await kept(second), false)
  assert.equal(begun.length, 2)
})

test('a sync ahead that fails makes the flush fail, and nothing else', async () => {
  const { syncs, begun } = made()
  syncs.ahead()
  begun[0]?.fail(new Error('the disk'))
  await turn()
  await assert.rejects(syncs.flush(), /the disk/)
})

type Step = 'change' | 'long change' | 'end change' | 'ahead' | 'flush' | 'end' | 'wait'
const STEPS: readonly Step[] = [
  'change',
  'long change',
  'end change',
  'ahead',
  'flush',
  'end',
  'wait',
]

test('whatever comes in whatever order, a flush is answered, by a sync that began after every change it must cover', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.constantFrom(...STEPS), { maxLength: 40 }), async (steps) => {
      let written = 0
      let durable = 0
      let changing = 0
      let begun = 0
      const running: (() => void)[] = []
      const syncs = new SharedSyncs(() => {
        const upTo = written
        begun++
        return new Promise((resolve) => {
          running.push(() => {
            durable = Math.max(durable, upTo)
            resolve()
          })
        })
      })
      let answered = 0
      const flushes: Promise<void>[] = []
      const flush = () => {
        const needed = written
        const one = syncs.flush().then(() => {
          assert.ok(durable >= needed, `${durable} of ${needed} changes are durable`)
          answered++
        })
        flushes.push(one)
      }
      const take: Record<Step, () => void> = {
        change: () => {
          syncs.changed()
          written++
        },
        // Of what is under way a sync that runs takes a part.
        'long change': () => {
          syncs.changed()
          changing++
        },
        'end change': () => {
          if (changing === 0) return
          changing--
          written++
          syncs.changed()
        },
        ahead: () => syncs.ahead(),
        flush,
        end: () => running.shift()?.(),
        wait: () => undefined,
      }
      // A microtask at a time, and several steps in one.
      for (const step of steps) {
        take[step]()
        if (step === 'wait') await Promise.resolve()
      }
      // Each sync that ends takes at least one flush with it, or none is left.
      for (let left = steps.length; answered < flushes.length && left > 0; left--) {
        running.shift()?.()
        await turn()
      }
      assert.equal(answered, flushes.length, 'every flush is answered')
      await Promise.all(flushes)
      assert.ok(begun <= steps.length, 'no sync without a cause')
    }),
    { seed: 20_261_122, numRuns: 500 },
  )
})
