import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, type TestContext, test } from 'node:test'
import type { Clock } from '#base/clock.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { doubtView } from '#control/sites/history.ts'
import { createWitness } from '#control/sites/witness.ts'
import { beginRun, readMeta } from '#control/store/meta.ts'
import { openStore } from '#control/store/open.ts'
import type { OwnershipRequest } from '#domain/ownership.ts'
import type { Report, SessionStatus } from '#wire/site/witness.ts'
import { startPostgres } from '../support/postgres.ts'

/** What the witness stores and answers around link losses, forced failovers and break-glass, on both engines. */
const LEASE_MS = 8_000
const DRIFT_MS = 500
const BROKEN_GLASS = 1_000_000
const log = createLog('test', 'silent')
const postgres = await startPostgres()
after(async () => {
  if (!('missing' in postgres)) await postgres.stop()
})

function stillClock(): Clock & { bootMs(): number; forward(ms: number): void } {
  let ms = 1_000_000
  return { ...systemClock, bootMs: () => ms, forward: (by) => void (ms += by) }
}

const opening: OwnershipRequest = {
  kind: 'open',
  epoch: 0,
  attempt: 'open-attempt',
  writer: 'az1',
  replica: 'az2',
}
const by = (kind: 'rise' | 'solo' | 'resync', epoch: number): OwnershipRequest => ({
  kind,
  site: 'az1',
  epoch,
  attempt: `${kind}-${epoch}-attempt`,
})
const own = (kind: 'freeze' | 'thaw', epoch: number): OwnershipRequest => ({
  kind,
  epoch,
  attempt: `${kind}-${epoch}-attempt`,
})
const failover = (
  epoch: number,
  more: { consent?: boolean; preferredOff?: boolean } = {},
): OwnershipRequest => ({
  kind: 'failover',
  epoch,
  attempt: `failover-${epoch}`,
  force: true,
  consent: false,
  ...more,
})
const promoted = (epoch: number, site = 'az2'): OwnershipRequest => ({
  kind: 'promoted',
  site,
  attempt: `promoted-${site}-${epoch}`,
  record: {
    epoch,
    writer: site,
    replica: site === 'az2' ? 'az1' : 'az2',
    mode: 'witness',
    preferred: 'az1',
  },
})

const report = (site: string, status: Partial<SessionStatus> | null): Report => ({
  site,
  agent: 'a',
  boot_id: 'b',
  run_id: 'r',
  version: '0',
  command_address: '127.0.0.1:1',
  link_address: '127.0.0.1:2',
  nbd_unix: '/x',
  nbd_tcp: null,
  nbd_tls: true,
  free_bytes: 1,
  sessions: status === null ? [] : [{ session: 's', ...status } as SessionStatus],
})

let databases = 0

for (const engine of ['sqlite', 'postgres'] as const) {
  const missing = engine === 'postgres' && 'missing' in postgres ? postgres.missing : false
  void describe(engine, { skip: missing }, () => {
    async function lab(t: TestContext, reportGraceMs = 0) {
      const dir = mkdtempSync(join(tmpdir(), 'holdfast-arbitration-'))
      const url =
        engine === 'sqlite' || 'missing' in postgres
          ? `sqlite:${dir}/state.db`
          : await postgres.database(`arbitration${++databases}`)
      const clock = stillClock()
      const store = await openStore({ url, clock, log })
      t.after(async () => {
        await store.close()
        rmSync(dir, { recursive: true, force: true })
      })
      await beginRun(store, 'boot-1')
      const witness = createWitness({
        store,
        clock,
        log,
        bootId: 'boot-1',
        leaseMs: LEASE_MS,
        driftMs: DRIFT_MS,
        reportGraceMs,
      })
      await store.write((tx) => witness.register(tx, 's', 'az1', 'az2'))
      const must = async (ask: OwnershipRequest) => {
        const answer = await witness.ask('s', ask, 'test')
        assert.ok(answer?.ok === true, JSON.stringify(answer))
        return answer.record
      }
      const refusal = async (ask: OwnershipRequest) => {
        const answer = await witness.ask('s', ask, 'test')
        return answer?.ok === false ? answer.refusal : 'granted'
      }
      const row = async () =>
        await store.db.selectFrom('ownership').selectAll().executeTakeFirstOrThrow()
      const doubt = async () => doubtView(await row(), (await readMeta(store.db)).history_mark)
      const kinds = async () => {
        const rows = await store.db
          .selectFrom('ownership_changes')
          .select('kind')
          .orderBy('epoch')
          .execute()
        return rows.map(({ kind }) => kind)
      }
      return { clock, store, witness, must, refusal, row, doubt, kinds }
    }

    test('what a writer did alone is stored with its renewals, and kept through resync and freeze', async (t) => {
      const { must, row, kinds } = await lab(t)
      await must(opening)
      await must(by('rise', 1))
      const solo = await must(by('solo', 2))
      assert.deepEqual([solo.state, solo.epoch, solo.alone], ['solo', 3, null])
      const alone = { sequence: 7, bytes: 4096, since: 1_700_000_000_000 }
      await must({ kind: 'renew', site: 'az1', epoch: 3, alone })
      assert.deepEqual(JSON.parse((await row()).alone ?? ''), alone)
      assert.deepEqual((await must(by('resync', 3))).alone, alone)
      const frozen = await must(own('freeze', 4))
      assert.deepEqual([frozen.state, frozen.alone], ['frozen', alone])
      const thawed = await must(own('thaw', 5))
      assert.deepEqual([thawed.state, thawed.alone], ['solo', alone])
      assert.deepEqual((await must(by('rise', 6))).alone, null)
      assert.equal((await row()).alone, null)
      const all = ['open', 'rise', 'solo', 'resync', 'freeze', 'thaw', 'rise']
      assert.deepEqual(await kinds(), all)
    })

    test('a frozen group is failed over at once with consent, without it when the lease has ended', async (t) => {
      const { clock, must, refusal } = await lab(t)
      await must(opening)
      await must(by('rise', 1))
      await must(by('solo', 2))
      await must({ kind: 'renew', site: 'az1', epoch: 3 })
      await must(own('freeze', 3))
      assert.deepEqual(await must(own('freeze', 3)), await must(own('freeze', 3)), 'a repeat')
      assert.equal(await refusal({ kind: 'renew', site: 'az1', epoch: 4 }), 'WRONG_STATE')
      assert.equal(await refusal(failover(4)), 'LEASE_HELD')
      clock.forward(LEASE_MS + DRIFT_MS)
      const record = await must(failover(4))
      assert.deepEqual([record.state, record.writer], ['failed_over', 'az2'])

      const other = await lab(t)
      await other.must(opening)
      await other.must({ kind: 'renew', site: 'az1', epoch: 1 })
      await other.must(own('freeze', 1))
      assert.equal((await other.must(failover(2, { consent: true }))).writer, 'az2')
    })

    test('an arrangement is stored for a closed session, and used when it is opened', async (t) => {
      const { witness, must, refusal, row, kinds } = await lab(t)
      const wanted = { mode: 'static-priority', preferred: 'az2' } as const
      const arranged = await witness.arrange('s', wanted, 'user:anna')
      assert.deepEqual(
        [arranged.epoch, arranged.mode, arranged.preferred],
        [0, 'static-priority', 'az2'],
      )
      await witness.arrange('s', wanted, 'user:anna')
      assert.deepEqual(await kinds(), ['configure'])
      await must({ ...opening, ...wanted })
      assert.deepEqual([(await row()).mode, (await row()).preferred], ['static-priority', 'az2'])
      await assert.rejects(
        witness.arrange('s', { mode: 'witness', preferred: 'az2' }, 'user:anna'),
        { code: 'OWNERSHIP_REFUSED' },
      )
      await must(by('rise', 1))
      const configure: OwnershipRequest = {
        kind: 'configure',
        site: 'az1',
        epoch: 2,
        attempt: 'configure-attempt',
        mode: 'static-priority',
        preferred: 'az1',
      }
      assert.equal((await must(configure)).preferred, 'az1')
      assert.equal(await refusal(failover(3)), 'PREFERRED_MAY_RUN')
      assert.equal((await must(failover(3, { preferredOff: true }))).writer, 'az2')
    })

    test('after break-glass nothing is granted until the site presents its record, which settles it', async (t) => {
      const { witness, must, refusal, doubt, kinds } = await lab(t)
      await must(opening)
      await must(by('rise', 1))
      const epoch = 2 + BROKEN_GLASS
      const ahead = { epoch, state: 'failed_over', role: 'writer', unwitnessed: true } as const
      await witness.heard(report('az2', ahead))
      assert.equal(await refusal(by('solo', 2)), 'WITNESS_WAITING')
      assert.deepEqual(await doubt(), {
        reason: 'agent_ahead',
        awaits: ['az2'],
        reportedEpoch: epoch,
      })
      // The other site's word does not settle it: the record tells more than a report.
      await witness.heard(report('az1', { epoch: 2, state: 'in_sync', role: 'writer' }))
      assert.equal(await refusal(by('solo', 2)), 'WITNESS_WAITING')

      const record = await must(promoted(epoch))
      assert.deepEqual([record.epoch, record.state, record.writer], [epoch, 'failed_over', 'az2'])
      assert.deepEqual(await must(promoted(epoch)), record, 'a repeat')
      assert.equal(await doubt(), null)
      assert.equal(await refusal(by('solo', 2)), 'STALE_EPOCH', 'the old writer is out')
      await must({ kind: 'renew', site: 'az2', epoch })
      assert.deepEqual(await kinds(), ['open', 'rise', 'doubt', 'promoted'])
    })

    test('a witness that has just started, or heard neither site for long, lets nobody go on alone before it has heard both, or for a moment', async (t) => {
      const GRACE_MS = 2_000
      const heard = await lab(t, GRACE_MS)
      await heard.must(opening)
      assert.equal(await heard.refusal({ kind: 'renew', site: 'az1', epoch: 1 }), 'WITNESS_WAITING')
      await heard.must(by('rise', 1))
      assert.equal(await heard.refusal(by('solo', 2)), 'WITNESS_WAITING')
      const inSync = { epoch: 2, state: 'in_sync', unwitnessed: false } as const
      await heard.witness.heard(report('az1', { ...inSync, role: 'writer' }))
      assert.equal(await heard.refusal(by('solo', 2)), 'WITNESS_WAITING', 'only one was heard')
      await heard.witness.heard(report('az2', { ...inSync, role: 'replica' }))
      assert.equal((await heard.must(by('solo', 2))).state, 'solo')

      const silent = await lab(t, GRACE_MS)
      await silent.must(opening)
      await silent.must(by('rise', 1))
      assert.equal(await silent.refusal(by('solo', 2)), 'WITNESS_WAITING')
      silent.clock.forward(GRACE_MS)
      assert.equal((await silent.must(by('solo', 2))).state, 'solo')

      // Both had been heard, and were cut off from the witness together: anything may have been decided there.
      heard.clock.forward(LEASE_MS + 1)
      const renewal: OwnershipRequest = { kind: 'renew', site: 'az1', epoch: 3 }
      assert.equal(await heard.refusal(renewal), 'WITNESS_WAITING')
      await heard.witness.heard(report('az2', { ...inSync, role: 'replica' }))
      await heard.must(renewal)

      // The operator at az2 broke the glass while there was no witness, and both come back together.
      const broken = await lab(t, GRACE_MS)
      await broken.must(opening)
      await broken.must(by('rise', 1))
      assert.equal(await broken.refusal(by('solo', 2)), 'WITNESS_WAITING')
      const epoch = 2 + BROKEN_GLASS
      const ahead = { epoch, state: 'failed_over', role: 'writer', unwitnessed: true } as const
      await broken.witness.heard(report('az2', ahead))
      broken.clock.forward(GRACE_MS)
      assert.equal(await broken.refusal(by('solo', 2)), 'WITNESS_WAITING')
      await broken.must(promoted(epoch))
      assert.equal(await broken.refusal(by('solo', 2)), 'STALE_EPOCH')
    })

    test('of two sites that both broke the glass the higher epoch wins, and the doubt lasts until it has spoken', async (t) => {
      const { witness, must, refusal, doubt } = await lab(t)
      await must(opening)
      const low = 1 + BROKEN_GLASS
      const high = low + BROKEN_GLASS
      const said = { state: 'failed_over', role: 'writer', unwitnessed: true } as const
      await witness.heard(report('az1', { ...said, epoch: low }))
      await witness.heard(report('az2', { ...said, epoch: high }))
      assert.equal((await must(promoted(low, 'az1'))).writer, 'az1')
      assert.equal((await doubt())?.reportedEpoch, high)
      assert.equal(await refusal({ kind: 'renew', site: 'az1', epoch: low }), 'WITNESS_WAITING')
      assert.equal((await must(promoted(high))).writer, 'az2')
      assert.equal(await doubt(), null)
      assert.equal(await refusal(promoted(low, 'az1')), 'STALE_EPOCH')
    })

    test('a site that broke the glass and never comes back is vouched for, and its epoch is counted', async (t) => {
      const { clock, witness, must, refusal } = await lab(t)
      await must(opening)
      const epoch = 1 + BROKEN_GLASS
      const said = { epoch, state: 'failed_over', role: 'writer', unwitnessed: true } as const
      await witness.heard(report('az2', said))
      await witness.trust('s', 'user:anna', 'az2')
      assert.equal((await witness.record('s'))?.epoch, epoch)
      assert.equal((await must(promoted(epoch))).epoch, epoch, 'what it says later is known')
      clock.forward(LEASE_MS + DRIFT_MS)
      assert.equal(await refusal(failover(1)), 'STALE_EPOCH')
      await must({ kind: 'freeze', epoch, attempt: 'freeze-attempt' })
      assert.deepEqual((await must(failover(epoch + 1))).writer, 'az1')
    })
  })
}
