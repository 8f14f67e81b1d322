import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { Fault } from '#base/fault.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { readGroup, readPair } from '#control/resources/groups.ts'
import { addChore, listChores } from '#control/resources/surroundings.ts'
import { CLOSED_AGAIN, latestPause, readOwnership } from '#control/resources/sync.ts'
import { SITE_REFUSED, SITE_UNREACHABLE } from '#control/sites/client.ts'
import {
  closedRecord,
  decideOwnership,
  type Ownership,
  type OwnershipRequest,
} from '#domain/ownership.ts'
import { readMeta } from '#control/store/meta.ts'
import { openStore } from '#control/store/open.ts'
import type { OwnershipRow } from '#control/store/tables/sites.ts'
import { disksOfPairs, groupRow, insertRows, ownershipRow, pairRow } from '../support/group-rows.ts'
import { witnessTime } from '../support/witness-time.ts'
import type { OperationServices } from '#control/operations/services.ts'
import { diskChore } from '#control/operations/disk-chores.ts'
import { type StepContext, StepWaits } from '#control/operations/operation.ts'
import {
  failoverPausedGroup,
  type PausedFailover,
} from '#control/operations/definitions/protection/paused-failover.ts'

type Serving = 'standalone' | 'standby' | 'unknown' | 'session' | 'away'

/** A paused group with one pair, of which a failover is under way; its production is az1. `more`: DR disks of further pairs. */
async function lab(
  t: TestContext,
  over: Partial<OwnershipRow> = {},
  more: readonly (Serving | 'failed')[] = [],
) {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-paused-'))
  const clock = { ...systemClock, wallMs: () => 1_000 }
  const log = createLog('test', 'silent')
  const store = await openStore({ url: `sqlite:${join(directory, 'state.db')}`, clock, log })
  t.after(async () => {
    await store.close()
    rmSync(directory, { recursive: true, force: true })
  })
  const group = groupRow('p', { form: 'evs', status: 'failing-over' })
  const member = (number: number) =>
    pairRow(group, number, { status: 'failing-over', progress: 100, added_epoch: 1 })
  const pair = member(1)
  const pairs = [pair, ...more.map((_, index) => member(index + 2))]
  await insertRows(store, {
    protection_groups: [group],
    replication_pairs: pairs,
    volumes: disksOfPairs(group, pairs),
  })
  const record = { ...ownershipRow(group, 'mark', 'closed'), ...over }
  await store.write((tx) => tx.insertInto('ownership').values(record).execute())

  const disks: Record<string, Serving> = { az1: 'standalone', az2: 'standby' }
  const heard = new Set(['az1', 'az2'])
  const said: string[] = []
  const changes: string[] = []
  const refusal = (code: string) => new Fault(SITE_REFUSED, code, { refusal: code })
  type Request = { serving?: Serving; volume?: string }
  const command = async (site: string, name: string, request: Request) => {
    const own = more[pairs.findIndex((one) => one.target_volume === request.volume) - 1]
    if (own === 'unknown') throw refusal('VOLUME_UNKNOWN')
    if (own !== undefined) return { failed: own === 'failed' ? 'EIO' : null, serving: own }
    said.push([site, name, request.serving].filter(Boolean).join(' '))
    if (disks[site] === 'away') throw new Fault(SITE_UNREACHABLE, site)
    if (name === 'session.close') {
      // The rest of an ended session takes the newer record, whatever has become of the disks.
      if (disks[site] === 'session') disks[site] = 'standalone'
      return {}
    }
    if (disks[site] === 'unknown') throw refusal('VOLUME_UNKNOWN')
    if (name === 'volume.serve') {
      if (disks[site] === 'session') throw refusal('VOLUME_BUSY')
      disks[site] = request.serving ?? 'away'
    }
    return { failed: null, serving: disks[site] }
  }
  const services = {
    store,
    clock,
    log,
    sites: { command } as unknown as OperationServices['sites'],
    agents: { heard: (site: string) => heard.has(site) } as OperationServices['agents'],
    witness: {
      record: async (id: string) => (await readOwnership(store.db, [id])).get(id) ?? null,
      change: async (id: string, request: OwnershipRequest) => {
        const now = (await readOwnership(store.db, [id])).get(id)
        assert.ok(now)
        const full = { ...closedRecord(id, now.writer, now.replica, 'one'), epoch: now.epoch }
        const before = { ...full, state: now.state as Ownership['state'] }
        const answer = decideOwnership(before, request, witnessTime())
        assert.ok(answer.ok, 'the witness agrees')
        const { state, writer, replica, epoch, attempt } = answer.record
        changes.push(`${state} ${writer} ${attempt}`)
        const set = { state, writer, replica, epoch }
        await store.write((tx) => tx.updateTable('ownership').set(set).execute())
        return answer.record
      },
    } as unknown as OperationServices['witness'],
  } as OperationServices
  const contextOf = (more: Partial<StepContext<PausedFailover>>) =>
    ({
      id: 'operation',
      attempt: 1,
      attemptId: 'attempt',
      resourceId: group.id,
      results: {},
      input: {},
      services,
      signal: AbortSignal.timeout(10_000),
      ...more,
    }) as StepContext<PausedFailover>
  const stepOf = (name: string) => {
    const found = failoverPausedGroup.steps.find((one) => one.name === name)
    assert.ok(found)
    return found
  }
  return {
    store,
    group,
    pair,
    disks,
    heard,
    said,
    changes,
    pairs,
    act: async (name: string, more: Partial<StepContext<PausedFailover>> = {}) =>
      await stepOf(name).act(contextOf(more)),
    recordStep: (name: string, result?: unknown) =>
      store.write((tx) => stepOf(name).record(tx, contextOf({}), result)),
    fail: (step: string) =>
      store.write((tx) =>
        failoverPausedGroup.failed(tx, contextOf({}), { code: 'WHY', message: '', step }, () =>
          assert.fail('nothing is submitted'),
        ),
      ),
    chores: async (site = 'az1') =>
      (await listChores(store.db, site)).map(({ request }) => JSON.parse(request)),
    shown: async () => [
      (await readGroup(store.db, group.id))?.status,
      (await readPair(store.db, pair.id))?.status,
      (await readGroup(store.db, group.id))?.failure_detail,
    ],
  }
}

test('a failure before the switch leaves the group paused, and what was fenced is opened again', async (t) => {
  const paused = await lab(t)
  await paused.fail('switch_record')
  assert.deepEqual(await paused.shown(), ['available', 'available', 'WHY'])
  const open = { volume: paused.pair.source_volume, serving: 'standalone', reason: '' }
  assert.deepEqual(await paused.chores(), [open])

  const untouched = await lab(t)
  await untouched.fail('look_at_dr')
  assert.deepEqual(await untouched.shown(), ['available', 'available', 'WHY'])
  assert.deepEqual(await untouched.chores(), [], 'production never stopped')
})

test('a failure behind the switch is repeated, and never opens the old production', async (t) => {
  const { fail, shown, chores } = await lab(t, { writer: 'az2', replica: 'az1' })
  await fail('serve_dr')
  assert.deepEqual(await shown(), ['error-failing-over', 'error-failing-over', 'WHY'])
  assert.deepEqual(await chores(), [])
})

test('a record that could not be closed again is left for the repetition of the failover', async (t) => {
  const { fail, shown, chores } = await lab(t, { state: 'resyncing' })
  await fail('switch_record')
  assert.deepEqual(await shown(), ['error-failing-over', 'error-failing-over', 'WHY'])
  assert.equal((await chores()).length, 1)
})

test('orders of a failed try to open production are withdrawn by the switch, and not carried out after it', async (t) => {
  const { store, group, pair, recordStep, chores } = await lab(t)
  const at = (volume: string) => ({ volume, serving: 'standalone', reason: '' })
  await store.write(async (tx) => {
    for (const volume of [pair.source_volume, 'of-somebody-else']) {
      await addChore(tx, { site: 'az1', command: 'volume.serve', request: at(volume) }, 1)
    }
  })
  const fitness = async () => {
    const [chore] = await listChores(store.db, 'az1')
    assert.ok(chore)
    return await diskChore(store.db, chore)
  }
  assert.equal(await fitness(), 'later', 'while the failover is at work')
  const set = (status: string) =>
    store.write((tx) => tx.updateTable('protection_groups').set({ status }).execute())
  await set('available')
  assert.equal(await fitness(), 'later', 'the record is in doubt: another site may write')
  const { history_mark } = await readMeta(store.db)
  await store.write((tx) => tx.updateTable('ownership').set({ history_mark }).execute())
  assert.equal(await fitness(), 'now')
  await store.write((tx) =>
    tx.updateTable('ownership').set({ writer: 'az2', replica: 'az1' }).execute(),
  )
  assert.equal(await fitness(), 'never', 'the other site writes')
  await recordStep('switch_record')
  assert.deepEqual(await chores(), [at('of-somebody-else')])
  assert.equal(await fitness(), 'now', 'of no pair')
  assert.equal((await readGroup(store.db, group.id))?.status, 'available')
})

test('DR disks must be as they were, but for those that a try behind the switch has opened', async (t) => {
  const undecided = await lab(t)
  await undecided.act('look_at_dr')
  undecided.disks['az2'] = 'standalone'
  await assert.rejects(undecided.act('look_at_dr'), { code: 'DR_DISK_NOT_KEPT' })
  const decided = await lab(t, { writer: 'az2', replica: 'az1' })
  decided.disks['az2'] = 'standalone'
  await decided.act('look_at_dr')
})

const SWITCHED = { writer: 'az2', replica: 'az1' }

test('a DR disk that was lost behind the switch is left behind with its pair, and the others serve', async (t) => {
  const { store, act, recordStep, pairs, disks, said, group, shown } = await lab(t, SWITCHED, [
    'unknown',
    'failed',
  ])
  const lost = [pairs[1]?.id, pairs[2]?.id]
  assert.deepEqual(await act('serve_dr'), lost)
  assert.deepEqual(said, ['az2 session.close', 'az2 volume.serve standalone'], 'known before')
  assert.equal(disks['az2'], 'standalone')
  await recordStep('serve_dr', lost)
  assert.deepEqual((await shown()).slice(0, 2), ['failed-over', 'failed-over'])
  for (const id of lost) {
    const row = await readPair(store.db, id ?? '')
    assert.deepEqual([row?.status, row?.failure_detail], ['error', 'DR_DISK_LOST'])
  }
  assert.equal((await readGroup(store.db, group.id))?.station, 'target')
})

test('a failover that loses all its DR disks behind the switch gives the record back and stays paused', async (t) => {
  const { act, fail, disks, changes, shown, chores, said } = await lab(t, SWITCHED, ['unknown'])
  disks['az2'] = 'unknown'
  await assert.rejects(act('serve_dr'), { code: 'DR_DISKS_LOST' })
  assert.deepEqual(changes, [
    'resyncing az2 attempt.back.open',
    'failed_over az1 attempt.back.failover',
    `closed az1 attempt.back${CLOSED_AGAIN}`,
  ])
  await fail('serve_dr')
  assert.deepEqual(await shown(), ['available', 'available', 'WHY'])
  assert.equal((await chores()).length, 2, 'production is opened again')
  // A try that died on the way back finds the disks there again, and serves none of them.
  disks['az2'] = 'standby'
  said.length = 0
  await assert.rejects(act('serve_dr'), { code: 'DR_DISKS_LOST' })
  assert.deepEqual(said, ['az2 session.close', 'az1 session.close'], 'both know who has it back')
})

test('a failover that died on its way back to production is ended by its repetition', async (t) => {
  const { act, fail, disks, changes, shown } = await lab(t, { state: 'failed_over' })
  disks['az2'] = 'unknown'
  await assert.rejects(act('look_at_dr'), { code: 'DR_DISK_NOT_KEPT' })
  assert.deepEqual(changes, [`closed az1 attempt${CLOSED_AGAIN}`])
  await fail('look_at_dr')
  assert.deepEqual(await shown(), ['available', 'available', 'WHY'])
})

test('production is fenced also when its disks are gone, or when it has not heard of the pause', async (t) => {
  const { act, disks, said } = await lab(t)
  assert.equal(await act('fence'), true)
  assert.equal(disks['az1'], 'standby')
  disks['az1'] = 'unknown'
  assert.equal(await act('fence'), true)
  disks['az1'] = 'session'
  said.length = 0
  assert.equal(await act('fence'), true)
  const serve = 'az1 volume.serve standby'
  assert.deepEqual(said, [serve, 'az1 session.close', serve])
})

test('production that does not answer is tried a few times, and then counts as not fenced', async (t) => {
  const { act, disks, heard } = await lab(t)
  disks['az1'] = 'away'
  await assert.rejects(act('fence'), { code: 'SITE_UNREACHABLE' })
  assert.equal(await act('fence', { attempt: 5 }), false)
  heard.delete('az1')
  assert.equal(await act('fence'), false, 'silent')
})

test('the old production is told once more behind the switch, for as long as it takes', async (t) => {
  const { store, act, disks, heard, said } = await lab(t, { writer: 'az2', replica: 'az1' })
  await store.write((tx) =>
    tx.updateTable('protection_groups').set({ status: 'failed-over', station: 'target' }).execute(),
  )
  const waits = (error: unknown) => error instanceof StepWaits
  heard.delete('az1')
  await assert.rejects(act('fence_late'), waits)
  heard.add('az1')
  disks['az1'] = 'away'
  await assert.rejects(act('fence_late', { attempt: 14 }), waits)
  disks['az1'] = 'standalone'
  said.length = 0
  await act('fence_late', { results: { fence: true } })
  assert.equal(disks['az1'], 'standby')
  assert.equal(said.at(-1), 'az1 session.close', 'it keeps who writes now')
})

test('a group is paused since its production was told, whatever failovers have failed since', async (t) => {
  const { store, group } = await lab(t)
  const changes = [
    ['closed', 'az1', 'stop', 10],
    ['resyncing', 'az1', 'try.open', 20],
    ['closed', 'az1', `try${CLOSED_AGAIN}`, 30],
    ['closed', 'az2', 'try.close', 40],
  ] as const
  await store.write(async (tx) => {
    for (const [state, writer, attempt, at] of changes) {
      const change = { session: group.id, epoch: at, kind: 'close', state, writer, attempt, at }
      const rest = { replica: 'az2', asked_by: 'test', incarnation: 'one' }
      await tx
        .insertInto('ownership_changes')
        .values({ ...change, ...rest })
        .execute()
    }
  })
  assert.equal(await latestPause(store.db, group.id, 'az1'), 10)
  assert.equal(await latestPause(store.db, group.id, 'az3'), null)
})
