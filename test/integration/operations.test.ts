import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test, type TestContext } from 'node:test'
import { BrokenInvariant } from '#base/assert.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { Fault, fault } from '#base/fault.ts'
import { createEngine, type EngineOptions, type OperationView } from '#control/operations/engine.ts'
import { operation, step, StepWaits } from '#control/operations/operation.ts'
import { forgetEnded } from '#control/operations/records.ts'
import type { OperationServices } from '#control/operations/services.ts'
import { openStore } from '#control/store/open.ts'
import { everyBoundary, scratch } from './operations/boundaries.ts'
import { kinds, part, type SampleInput, whole } from './operations/sample.ts'

async function lab(t: TestContext, options: Partial<EngineOptions> = {}) {
  const { url, trace } = scratch(t)
  const log = createLog('test', 'silent')
  const store = await openStore({ url, clock: systemClock, log })
  const engine = createEngine({
    store,
    clock: systemClock,
    log,
    services: { store, clock: systemClock, log } as OperationServices,
    kinds,
    random: () => 0.5,
    ...options,
  })
  t.after(async () => {
    await engine.stop()
    await store.close()
  })
  const submit = (input: Partial<SampleInput> = {}, resourceId = 'one') =>
    store.write((tx) =>
      engine.submit(tx, whole, {
        project: 'p',
        input: { trace, ...input },
        resourceType: 'sample',
        resourceId,
      }),
    )
  const marks = async () =>
    (await store.db.selectFrom('audit').select('id').orderBy('id').execute()).map(({ id }) => id)
  const traced = () =>
    readFileSync(trace, 'utf8')
      .trim()
      .split('\n')
      .map((line) => line.split(' '))
  const until = async (id: string, test: (view: OperationView) => boolean) => {
    for (;;) {
      const view = await engine.get(id)
      if (view !== null && test(view)) return view
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
  return { store, engine, trace, submit, marks, traced, until }
}

test('an operation killed with SIGKILL at every boundary of every step still ends, each step recorded once', async (t) => {
  const points = await everyBoundary(t, { parts: 2 }, 'succeeded')
  t.diagnostic(`${points.length} boundaries`)
  assert.equal(points.length, 12)
})

test('an operation that fails ends as failed wherever it is killed, its clean-up done once', async (t) => {
  const points = await everyBoundary(
    t,
    { parts: 1, trouble: { step: 'finish', retry: 'never', times: 99 } },
    'failed',
  )
  assert.ok(points.some(({ phase }) => phase === 'before-failed'))
  assert.ok(points.some(({ phase }) => phase === 'after-failed'))
})

test('results, entities and progress come from the steps, and later steps see earlier results', async (t) => {
  const { engine, store, submit } = await lab(t)
  const id = await submit({ parts: 3 })
  engine.start()
  const view = await engine.waitFor(id)
  assert.equal(view.status, 'succeeded')
  assert.equal(view.progress, 100)
  assert.deepEqual(view.entities, { prepare_done: true, finish_done: true })
  assert.equal((await engine.list({ parent: id })).length, 3)
  const last = await store.db
    .selectFrom('audit')
    .select('detail')
    .where('id', '=', `${id}/finish`)
    .executeTakeFirstOrThrow()
  assert.deepEqual(JSON.parse(last.detail), {
    result: { said: `finish of ${id}` },
    before: ['prepare', 'parts'],
  })
})

test('a rolled back transaction leaves no operation behind', async (t) => {
  const { engine, store, trace } = await lab(t)
  engine.start()
  await assert.rejects(
    store.write(async (tx) => {
      await engine.submit(tx, whole, {
        project: 'p',
        input: { trace },
        resourceType: 'sample',
        resourceId: 'one',
      })
      throw new Error('the caller changed its mind')
    }),
  )
  assert.deepEqual(await engine.list({}), [])
})

test('a fault worth repeating is repeated until it passes', async (t) => {
  const { engine, submit, traced } = await lab(t)
  engine.start()
  for (const retry of ['later', 'now'] as const) {
    const view = await engine.waitFor(
      await submit({ trouble: { step: 'prepare', retry, times: 3 } }),
    )
    assert.equal(view.status, 'succeeded')
    const tries = traced().filter(([id, name]) => id === view.id && name === 'prepare')
    assert.deepEqual(
      tries.map(([, , attempt]) => attempt),
      ['1', '2', '3', '4'],
    )
  }
})

test('a fault that stays ends the operation after its number of tries, with its code', async (t) => {
  const { engine, submit, traced, marks } = await lab(t)
  engine.start()
  const id = await submit({ trouble: { step: 'finish', retry: 'later', times: 99 } })
  const view = await engine.waitFor(id)
  assert.deepEqual(
    [view.status, view.errorCode, view.failedStep],
    ['failed', 'SAMPLE_LATER', 'finish'],
  )
  assert.equal(traced().filter(([, name]) => name === 'finish').length, 6)
  assert.ok((await marks()).includes(`${id}/failed`))
})

test('a fault that never passes ends the operation at once', async (t) => {
  const { engine, submit, traced } = await lab(t)
  engine.start()
  const view = await engine.waitFor(
    await submit({ trouble: { step: 'prepare', retry: 'never', times: 1 } }),
  )
  assert.deepEqual([view.status, view.errorCode], ['failed', 'SAMPLE_NEVER'])
  assert.equal(traced().length, 1)
})

test('a failed part fails the whole, after all parts have ended', async (t) => {
  const { engine, submit } = await lab(t)
  engine.start()
  const id = await submit({ parts: 2, trouble: { step: 'work', retry: 'never', times: 99 } })
  const view = await engine.waitFor(id)
  assert.deepEqual(
    [view.status, view.errorCode, view.failedStep],
    ['failed', 'SUB_OPERATION_FAILED', 'parts'],
  )
  for (const child of await engine.list({ parent: id })) assert.equal(child.status, 'failed')
})

test('operations on one resource run in order of submission, also when the clock goes back', async (t) => {
  let now = 1_800_000_000_000
  const clock = { ...systemClock, wallMs: () => (now -= 5) }
  const { engine, submit, traced } = await lab(t, { clock, concurrency: 4 })
  const ids: string[] = []
  for (let n = 0; n < 6; n++) ids.push(await submit())
  engine.start()
  for (const id of ids) await engine.waitFor(id)
  assert.deepEqual([...new Set(traced().map(([id]) => id))], ids)
  const newestFirst = (await engine.list({})).map(({ id }) => id)
  assert.deepEqual(newestFirst, [...ids].reverse())
})

test('operations on one resource run one after the other, on different ones side by side', async (t) => {
  const { engine, submit, traced, until } = await lab(t)
  const first = await submit({ hang: 'prepare' }, 'a')
  const second = await submit({}, 'a')
  const third = await submit({}, 'b')
  engine.start()
  await engine.waitFor(third)
  await until(first, ({ status }) => status === 'running')
  assert.equal((await engine.get(second))?.status, 'pending')
  await engine.cancel(first)
  assert.equal((await engine.waitFor(second)).status, 'succeeded')
  const order = traced().map(([id]) => id)
  assert.ok(order.lastIndexOf(first) < order.indexOf(second))
})

test('parents that wait for their parts do not take the places the parts need', async (t) => {
  const { engine, submit } = await lab(t, { concurrency: 1 })
  const ids = [await submit({ parts: 2 }, 'a'), await submit({ parts: 2 }, 'b')]
  engine.start()
  for (const id of ids) assert.equal((await engine.waitFor(id)).status, 'succeeded')
})

test('a part may work on the resource of its parent although others wait for it', async (t) => {
  const { engine, store, submit, trace } = await lab(t)
  const parent = await submit({ hang: 'prepare' }, 'a')
  const behind = await submit({}, 'a')
  const child = await store.write((tx) =>
    engine.submit(tx, part, {
      project: 'p',
      input: { trace },
      resourceType: 'sample',
      resourceId: 'a',
      parent,
    }),
  )
  engine.start()
  assert.equal((await engine.waitFor(child)).status, 'succeeded')
  assert.equal((await engine.get(behind))?.status, 'pending')
})

test('cancelling works before the beginning and in steps that allow it, and is refused elsewhere', async (t) => {
  const { engine, submit, marks, until } = await lab(t)
  const early = await submit({}, 'early')
  await engine.cancel(early)
  const cancelledEarly = await engine.waitFor(early)
  assert.deepEqual([cancelledEarly.status, cancelledEarly.errorCode], ['cancelled', 'CANCELLED'])
  await assert.rejects(engine.cancel(early), { code: 'OPERATION_NOT_CANCELLABLE' })
  await assert.rejects(engine.cancel('0'.repeat(32)), { code: 'OPERATION_UNKNOWN' })

  engine.start()
  const during = await submit({ hang: 'prepare' }, 'during')
  await until(during, ({ status }) => status === 'running')
  await engine.cancel(during)
  assert.equal((await engine.waitFor(during)).status, 'cancelled')
  assert.ok((await marks()).includes(`${during}/failed`))

  const firm = await submit({ hang: 'finish' }, 'firm')
  await until(firm, ({ step: at }) => at === 'finish')
  await assert.rejects(engine.cancel(firm), { code: 'OPERATION_NOT_CANCELLABLE' })

  const parent = await submit({ parts: 2, hang: 'work' }, 'parent')
  await until(parent, ({ step: at }) => at === 'parts')
  const children = await engine.list({ parent })
  // The parts have begun a step that does not allow it, so the parent goes on waiting for them.
  for (const child of children) await until(child.id, ({ status }) => status === 'running')
  await engine.cancel(parent)
  assert.equal((await engine.get(parent))?.status, 'running')
})

test('a full queue refuses and changes nothing', async (t) => {
  const { engine, submit } = await lab(t, { queueMax: 2 })
  await submit()
  await submit()
  await assert.rejects(submit(), { code: 'OPERATIONS_FULL' })
  assert.equal((await engine.list({})).length, 2)
})

test('stopping gives running operations back, and another engine goes on without counting a try', async (t) => {
  const { engine, store, submit, until } = await lab(t)
  const id = await submit({ hang: 'prepare' })
  engine.start()
  await until(id, ({ status }) => status === 'running')
  await engine.stop()
  const row = await store.db
    .selectFrom('operations')
    .select(['lease_owner', 'attempts', 'status'])
    .where('id', '=', id)
    .executeTakeFirstOrThrow()
  assert.deepEqual(row, { lease_owner: null, attempts: 0, status: 'running' })
})

test('a broken invariant inside a step is not swallowed', async (t) => {
  const broken = operation<SampleInput>('sample.broken', {
    version: 1,
    steps: [
      step('break', {
        act: async () => {
          throw new BrokenInvariant('planted')
        },
      }),
    ],
    failed: async () => {},
  })
  const { promise, resolve } = Promise.withResolvers<unknown>()
  const { engine, store, trace } = await lab(t, {
    kinds: [broken] as EngineOptions['kinds'],
    crash: resolve,
  })
  engine.start()
  await store.write((tx) =>
    engine.submit(tx, broken, {
      project: null,
      input: { trace },
      resourceType: 'sample',
      resourceId: 'x',
    }),
  )
  assert.ok((await promise) instanceof BrokenInvariant)
})

test('operations that ended long ago are forgotten with their parts and results, younger and running ones stay', async (t) => {
  const { engine, store, submit, until } = await lab(t)
  engine.start()
  const old = await submit({ parts: 2 }, 'old')
  await engine.waitFor(old)
  const { endAt } = (await engine.get(old)) ?? { endAt: null }
  assert.ok(endAt !== null)
  const running = await submit({ hang: 'prepare' }, 'running')
  await until(running, ({ status }) => status === 'running')
  assert.equal(await store.write((tx) => forgetEnded(tx, endAt, 10)), 0)
  assert.equal(await store.write((tx) => forgetEnded(tx, endAt + 1, 10)), 1)
  assert.deepEqual(
    (await engine.list({})).map(({ id }) => id),
    [running],
  )
  assert.deepEqual(await store.db.selectFrom('operation_steps').selectAll().execute(), [])
})

test('listing is newest first, filtered, and goes on after an id', async (t) => {
  const { engine, submit } = await lab(t)
  const ids: string[] = []
  for (const name of ['a', 'b', 'c', 'd']) {
    ids.push(await submit({}, name))
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
  const newest = ids.toReversed()
  assert.deepEqual(
    (await engine.list({})).map(({ id }) => id),
    newest,
  )
  assert.deepEqual(
    (await engine.list({ limit: 2 })).map(({ id }) => id),
    newest.slice(0, 2),
  )
  const after = newest[1] ?? ''
  assert.deepEqual(
    (await engine.list({ after })).map(({ id }) => id),
    newest.slice(2),
  )
  assert.deepEqual(
    (await engine.list({ resourceId: 'c' })).map(({ id }) => id),
    [ids[2]],
  )
  assert.deepEqual(await engine.list({ project: 'other' }), [])
  assert.deepEqual(await engine.list({ status: ['succeeded'] }), [])
})

const HICCUP = fault({ code: 'HICCUP', retry: 'now', text: 'Not now.', hint: 'Repeat.' })

test('a step that waits for somebody gives its place back, counts no try, and goes on at once when it is woken', async (t) => {
  const looks: string[] = []
  let open = false
  /** Runs between the look that found nothing and the moment in which the place is given back. */
  let between = async () => {}
  const patient = operation<SampleInput>('patient', {
    version: 1,
    steps: [
      step('wait', {
        retry: { attemptsMax: 2 },
        act: async (ctx) => {
          looks.push(ctx.id)
          // Between two waits it fails for a moment, each time: that never adds up.
          if (looks.length % 2 === 0) throw new Fault(HICCUP, 'looking')
          assert.ok(ctx.attempt <= 2)
          if (open) return
          await between()
          throw new StepWaits(3_600_000)
        },
      }),
    ],
    failed: async () => {},
  })
  const { store, engine, submit } = await lab(t, { kinds: [...kinds, patient], concurrency: 1 })
  engine.start()
  const waiting = await store.write((tx) =>
    engine.submit(tx, patient, {
      project: 'p',
      input: { trace: '' },
      resourceType: 'sample',
      resourceId: 'patient',
    }),
  )
  const other = await submit()
  assert.equal((await engine.waitFor(other)).status, 'succeeded', 'the only place was free')
  const wake = () => store.write((tx) => engine.wake(tx, [waiting]))
  for (let turn = looks.length; turn < 4; turn++) {
    await wake()
    while (looks.length <= turn) await new Promise((resolve) => setImmediate(resolve))
  }
  // Woken in the moment in which it has looked and not yet given its place back.
  let woken = false
  between = async () => {
    if (woken) return
    woken = true
    open = true
    await wake()
  }
  await wake()
  assert.equal((await engine.waitFor(waiting)).status, 'succeeded')
})
