import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, type TestContext, test } from 'node:test'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { createEngine } from '#control/operations/engine.ts'
import type { OperationServices } from '#control/operations/services.ts'
import { openStore } from '#control/store/open.ts'
import { startPostgres } from '../support/postgres.ts'
import { kinds, type SampleInput, whole } from './operations/sample.ts'

/* Several control planes on one PostgreSQL. */

const postgres = await startPostgres()
const missing = 'missing' in postgres ? { skip: postgres.missing } : {}
after(async () => {
  if (!('missing' in postgres)) await postgres.stop()
})
let databases = 0

async function lab(t: TestContext, leaseMs: number) {
  assert.ok(!('missing' in postgres))
  const url = await postgres.database(`operations_${++databases}`)
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-shared-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  const trace = `${dir}/trace`
  const log = createLog('test', 'silent')
  const plane = async () => {
    const store = await openStore({ url, clock: systemClock, log })
    const services = { store, clock: systemClock, log } as OperationServices
    const random = () => 0.5
    const engine = createEngine({
      store,
      clock: systemClock,
      log,
      services,
      kinds,
      random,
      leaseMs,
    })
    t.after(async () => {
      await engine.stop()
      await store.close()
    })
    const submit = (input: Partial<SampleInput>, resourceId: string) =>
      store.write((tx) =>
        engine.submit(tx, whole, {
          project: 'p',
          input: { trace, ...input },
          resourceType: 'sample',
          resourceId,
        }),
      )
    return { store, engine, submit }
  }
  const traced = () => readFileSync(trace, 'utf8').trim().split('\n')
  return { url, trace, plane, traced }
}

test(
  'two control planes share the work, and no step runs twice while both live',
  missing,
  async (t) => {
    const { plane, traced } = await lab(t, 15_000)
    const [one, other] = [await plane(), await plane()]
    one.engine.start()
    other.engine.start()
    const ids = await Promise.all(
      Array.from({ length: 16 }, (_, index) =>
        (index % 2 === 0 ? one : other).submit({ parts: 1 }, `r${index % 8}`),
      ),
    )
    for (const id of ids) assert.equal((await one.engine.waitFor(id)).status, 'succeeded')
    const acts = traced()
    assert.equal(acts.length, 16 * 3)
    assert.equal(new Set(acts).size, acts.length)
  },
)

test(
  'the operation of a control plane that was killed is taken over after one lease',
  missing,
  async (t) => {
    const { url, trace, plane } = await lab(t, 1_000)
    const crash = { operation: 'sample.whole', step: 'finish', phase: 'after-act' }
    const host = join(import.meta.dirname, 'operations/host.ts')
    await new Promise<void>((resolve) => {
      const args = JSON.stringify({ url, submit: { trace, parts: 1 }, crash })
      execFile(process.execPath, [host, args], () => resolve())
    })
    const { engine } = await plane()
    const [left] = await engine.list({ resourceType: 'sample' })
    assert.deepEqual([left?.status, left?.step], ['running', 'finish'])
    const beganMs = systemClock.bootMs()
    engine.start()
    const view = await engine.waitFor(left?.id ?? '')
    assert.equal(view.status, 'succeeded')
    assert.ok(systemClock.bootMs() - beganMs >= 1_000, 'not before a whole lease was watched')
  },
)

test(
  'the operation of a living control plane is left alone, and the other one can cancel it',
  missing,
  async (t) => {
    const { plane, traced } = await lab(t, 400)
    const [owner, watcher] = [await plane(), await plane()]
    owner.engine.start()
    const id = await owner.submit({ hang: 'prepare' }, 'r')
    const beats = async () => {
      const row = await watcher.store.db
        .selectFrom('operations')
        .select(['lease_beat', 'lease_owner'])
        .where('id', '=', id)
        .executeTakeFirstOrThrow()
      return row.lease_owner === null ? 0 : row.lease_beat
    }
    while ((await beats()) < 1) await new Promise((resolve) => setTimeout(resolve, 20))
    watcher.engine.start()
    // Three leases' worth of beats.
    while ((await beats()) < 13) await new Promise((resolve) => setTimeout(resolve, 20))
    assert.equal(traced().length, 1)
    await watcher.engine.cancel(id)
    assert.equal((await watcher.engine.waitFor(id)).status, 'cancelled')
  },
)
