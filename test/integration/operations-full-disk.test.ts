/** What becomes of operations while the state database has no space. */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { createEngine } from '#control/operations/engine.ts'
import type { OperationServices } from '#control/operations/services.ts'
import { openStore } from '#control/store/open.ts'
import { STORE_FULL, type Store } from '#control/store/store.ts'
import { kinds, whole } from './operations/sample.ts'

test('an operation whose steps cannot be recorded for want of space waits, costs no try, and ends when there is some', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-full-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const trace = join(directory, 'trace')
  const log = createLog('test', 'silent')
  const store = await openStore({ url: `sqlite:${directory}/state.db`, clock: systemClock, log })
  let refused = 0
  let full = false
  let seen = () => {}
  /** As the real one does once its disk is full: nothing is committed. */
  const small: Store = {
    ...store,
    write: async (run) => {
      if (!full) return await store.write(run)
      if (++refused === 20) seen()
      throw new Fault(STORE_FULL, 'writing')
    },
  }
  const crashes: unknown[] = []
  /** Pauses are a twentieth of what they are. */
  const clock: Clock = { ...systemClock, after: (ms, then) => systemClock.after(ms / 20, then) }
  const engine = createEngine({
    store: small,
    clock,
    log,
    services: { store: small, clock, log } as OperationServices,
    kinds,
    random: () => 0.5,
    crash: (error) => crashes.push(error),
    // Between what a step has done and the record of it.
    crashPoint: (_operation, name, phase) => {
      if (name === 'prepare' && phase === 'after-act' && refused === 0) full = true
    },
  })
  t.after(async () => {
    await engine.stop()
    await store.close()
  })
  const id = await store.write((tx) =>
    engine.submit(tx, whole, {
      project: 'p',
      input: { trace },
      resourceType: 'sample',
      resourceId: 'one',
    }),
  )
  const refusedForLong = new Promise<void>((resolve) => (seen = resolve))
  engine.start()
  // As many as the step has tries, three times over.
  await refusedForLong
  assert.equal((await engine.get(id))?.status, 'running')
  full = false
  const view = await engine.waitFor(id)
  assert.equal(view.status, 'succeeded')
  const lines = readFileSync(trace, 'utf8').trim().split('\n')
  // What was done and not recorded was done again, as after a crash.
  assert.deepEqual(
    lines.map((line) => line.split(' ').slice(1)),
    [
      ['prepare', '1'],
      ['prepare', '2'],
      ['finish', '1'],
    ],
  )
  assert.deepEqual(crashes, [])
})
