import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import type { Clock } from '#base/clock.ts'
import { createLog } from '#base/log.ts'
import { createAuthority, issueCertificate } from '#base/system/pki.ts'
import { systemClock } from '#base/system/clock.ts'
import { createAgentBook } from '#control/sites/agents.ts'
import { createSiteClient, refusalCode } from '#control/sites/client.ts'
import { serveInternal } from '#control/sites/server.ts'
import { createWitness, type Witness } from '#control/sites/witness.ts'
import { backupState, restoreState } from '#control/store/backup.ts'
import { beginRun, endRun, readMeta } from '#control/store/meta.ts'
import { openStore } from '#control/store/open.ts'
import type { Store } from '#control/store/store.ts'
import type { OwnershipRequest } from '#domain/ownership.ts'
import { createServer } from 'node:https'
import { Agent, request } from 'undici'
import type { Report, SessionStatus } from '#wire/site/witness.ts'
import { sessionStatus } from '../support/session-status.ts'

const LEASE_MS = 8_000
const DRIFT_MS = 500
const log = createLog('test', 'silent')

/** A clock that stands still until told. */
function stillClock(): Clock & { bootMs(): number; forward(ms: number): void } {
  let ms = 1_000_000
  return { ...systemClock, bootMs: () => ms, forward: (by) => void (ms += by) }
}

async function lab(t: TestContext) {
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-witness-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  const clock = stillClock()
  const open: Store[] = []
  t.after(() => Promise.all(open.map((store) => store.close())))
  const url = (database: string) => `sqlite:${dir}/${database}`
  /** A control plane starts; `bootId` names the boot of its host. */
  const start = async (bootId: string, database = 'state.db') => {
    const store = await openStore({ url: url(database), clock, log })
    open.push(store)
    const { doubt, unclean } = await beginRun(store, bootId)
    const witness = createWitness({
      store,
      clock,
      log,
      bootId,
      leaseMs: LEASE_MS,
      driftMs: DRIFT_MS,
    })
    const must = async (ask: OwnershipRequest) => {
      const answer = await witness.ask('s', ask, 'test')
      assert.ok(answer?.ok === true, JSON.stringify(answer))
      return answer.record
    }
    const refusal = async (ask: OwnershipRequest) => {
      const answer = await witness.ask('s', ask, 'test')
      return answer?.ok === false ? answer.refusal : 'granted'
    }
    await witness.watchLeases()
    return { store, witness, doubt, unclean, must, refusal }
  }
  /** A control plane starts on what a backup of `store` holds. */
  const startRestored = async (store: Store, bootId = 'boot-1') => {
    await backupState(store, `${dir}/backup`, clock)
    await store.close()
    await restoreState({ url: url('restored.db'), clock, log }, `${dir}/backup`)
    return await start(bootId, 'restored.db')
  }
  return { clock, start, startRestored }
}

const register = (store: Store, witness: Witness) =>
  store.write((tx) => witness.register(tx, 's', 'az1', 'az2'))

const opening: OwnershipRequest = {
  kind: 'open',
  epoch: 0,
  attempt: 'open-attempt',
  writer: 'az1',
  replica: 'az2',
}
const failover = (epoch: number, attempt = `failover-${epoch}`): OwnershipRequest => ({
  kind: 'failover',
  epoch,
  attempt,
  force: true,
  consent: false,
})
const renew = (epoch: number, site = 'az1'): OwnershipRequest => ({ kind: 'renew', site, epoch })

const report = (site: string, sessions: Partial<SessionStatus>[], mark?: string): Report => ({
  site,
  ...(mark === undefined ? {} : { mark }),
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
  sessions: sessions.map((status) => sessionStatus(status)),
})

test('a change is stored with its attempt: the repeat gets the same answer, another attempt of the old epoch none', async (t) => {
  const { start } = await lab(t)
  const { store, witness, must, refusal } = await start('boot-1')
  assert.equal(await witness.ask('s', opening, 'test'), null)
  await register(store, witness)
  await register(store, witness)
  const first = await must(opening)
  assert.deepEqual([first.epoch, first.state, first.writer], [1, 'resyncing', 'az1'])
  assert.deepEqual(await must(opening), first)
  assert.equal(await refusal({ ...opening, attempt: 'another-attempt' }), 'STALE_EPOCH')
  const changes = await store.db
    .selectFrom('ownership_changes')
    .select(['epoch', 'kind', 'asked_by'])
    .execute()
  assert.deepEqual(changes, [{ epoch: 1, kind: 'open', asked_by: 'test' }])
})

test('of many changes asked for at once under one epoch exactly one happens', async (t) => {
  const { start } = await lab(t)
  const { store, witness, must } = await start('boot-1')
  await register(store, witness)
  await must(opening)
  const answers = await Promise.all([
    ...Array.from({ length: 8 }, (_, index) =>
      witness.ask('s', failover(1, `race-${index}`), 'test'),
    ),
    ...Array.from({ length: 8 }, (_, index) =>
      witness.ask('s', { kind: 'rise', site: 'az1', epoch: 1, attempt: `rise-${index}` }, 'test'),
    ),
  ])
  assert.equal(answers.filter((answer) => answer?.ok === true).length, 1)
  assert.equal((await witness.record('s'))?.epoch, 2)
})

test('a lease holds off another writer until it has ended, also for a control plane restarted on the same boot', async (t) => {
  const { clock, start } = await lab(t)
  const first = await start('boot-1')
  await register(first.store, first.witness)
  await first.must(opening)
  await first.must(renew(1))
  clock.forward(6_000)
  assert.equal(await first.refusal(failover(1)), 'LEASE_HELD')
  await first.store.close() // as a killed process leaves it: no clean mark

  const second = await start('boot-1')
  assert.deepEqual([second.doubt, second.unclean], [null, true])
  assert.equal(await second.refusal(failover(1)), 'LEASE_HELD')
  await assert.rejects(second.witness.change('s', failover(1), 'test'), (error: unknown) => {
    assert.ok(error instanceof Error && 'code' in error && 'detail' in error)
    assert.equal(error.code, 'OWNERSHIP_WAIT')
    assert.equal((error.detail as { retryAfterMs: number }).retryAfterMs, 2_500)
    return true
  })
  clock.forward(2_500)
  assert.equal((await second.must(failover(1))).writer, 'az2')
})

test('after another boot a lease counts anew from the start of the control plane, and nothing else waits', async (t) => {
  const { clock, start } = await lab(t)
  const first = await start('boot-1')
  await register(first.store, first.witness)
  await first.must(opening)
  await first.must(renew(1))
  await endRun(first.store)
  await first.store.close()
  clock.forward(-900_000) // another boot counts from its own zero

  const second = await start('boot-2')
  assert.deepEqual([second.doubt, second.unclean], [null, false])
  clock.forward(LEASE_MS)
  assert.equal(await second.refusal(failover(1)), 'LEASE_HELD')
  clock.forward(DRIFT_MS)
  assert.equal((await second.must(failover(1))).writer, 'az2')
})

test('after a restore nothing is granted until both sites reported and one lease has passed', async (t) => {
  const { clock, start, startRestored } = await lab(t)
  const first = await start('boot-1')
  await register(first.store, first.witness)
  await first.must(opening)

  const { witness, doubt, must, refusal } = await startRestored(first.store)
  assert.equal(doubt, 'restored')
  const answer = await witness.ask('s', renew(1), 'test')
  assert.deepEqual(answer?.ok === false && answer.refusal, 'WITNESS_WAITING')
  const writer = { epoch: 1, state: 'resyncing', role: 'writer' } as const
  // A report that was on its way when the doubt began says nothing of what its site has followed since.
  const mark = await witness.heard(report('az1', [writer]))
  await witness.heard(report('az2', [{ ...writer, role: 'replica' }], 'of the time before'))
  await witness.heard(report('az1', [writer], mark))
  await witness.heard(report('az1', [writer], mark))
  assert.equal(await refusal(renew(1)), 'WITNESS_WAITING')
  await witness.heard(report('az2', [{ ...writer, role: 'replica' }], mark))
  // What the lost end of the database may have given out, and is still on its way, is not given out again.
  const epoch = (await witness.record('s'))?.epoch ?? 0
  assert.ok(epoch >= 100, `epoch ${epoch}`)
  assert.equal(await refusal(failover(epoch)), 'LEASE_HELD')
  clock.forward(LEASE_MS + DRIFT_MS)
  assert.equal((await must(failover(epoch))).epoch, epoch + 1)
})

test('words of a site spoken under an earlier doubt do not count under the next', async (t) => {
  const { start, startRestored } = await lab(t)
  const first = await start('boot-1')
  await register(first.store, first.witness)
  await first.must(opening)
  const said = { epoch: 1, state: 'resyncing' } as const
  await first.witness.heard(report('az2', [{ ...said, epoch: 3, role: 'writer' }]))
  const { witness, refusal } = await startRestored(first.store)
  const mark = await witness.heard(report('az1', []))
  await witness.heard(report('az1', [{ ...said, role: 'writer' }], mark))
  assert.equal(await refusal(renew(1)), 'WITNESS_WAITING')
})

test('an epoch above the record brings it into doubt, and both reports bring it up to date', async (t) => {
  const { clock, start } = await lab(t)
  const { store, witness, must, refusal } = await start('boot-1')
  await register(store, witness)
  await must(opening)
  await witness.heard(report('az2', [{ epoch: 5, state: 'failed_over', role: 'writer' }]))
  assert.equal(await refusal(renew(1)), 'WITNESS_WAITING')
  await witness.heard(report('az1', [{ epoch: 1, state: 'resyncing', role: 'writer' }]))
  const record = await witness.record('s')
  assert.deepEqual([record?.epoch, record?.state, record?.writer], [5, 'failed_over', 'az2'])
  assert.equal(await refusal(renew(1)), 'STALE_EPOCH')
  await must(renew(5, 'az2'))
  clock.forward(LEASE_MS + DRIFT_MS)
  const kinds = await store.db
    .selectFrom('ownership_changes')
    .select('kind')
    .orderBy('at')
    .execute()
  assert.deepEqual(
    kinds.map(({ kind }) => kind),
    ['open', 'doubt', 'adopt'],
  )
})

test('an operator may vouch for a record when a site cannot report, and still one lease passes', async (t) => {
  const { clock, start, startRestored } = await lab(t)
  const first = await start('boot-1')
  await register(first.store, first.witness)
  await first.must(opening)
  await first.must({ kind: 'rise', site: 'az1', epoch: 1, attempt: 'rise-attempt' })
  const { witness, must, refusal } = await startRestored(first.store)
  const mark = await witness.heard(report('az2', []))
  await witness.heard(report('az2', [{ epoch: 2, role: 'replica' }], mark))
  assert.equal(await refusal(failover(2)), 'WITNESS_WAITING')
  await witness.trust('s', 'operator:anna')
  const epoch = (await witness.record('s'))?.epoch ?? 0
  assert.equal(await refusal(failover(epoch)), 'LEASE_HELD')
  clock.forward(LEASE_MS + DRIFT_MS)
  assert.equal((await must(failover(epoch))).writer, 'az2')
})

test('only a closed session is forgotten', async (t) => {
  const { start } = await lab(t)
  const { store, witness, must } = await start('boot-1')
  await register(store, witness)
  await must(opening)
  await assert.rejects(
    store.write((tx) => witness.forget(tx, 's')),
    { code: 'OWNERSHIP_OPEN' },
  )
  await must({ kind: 'close', epoch: 1, attempt: 'close-attempt' })
  await store.write((tx) => witness.forget(tx, 's'))
  assert.equal(await witness.record('s'), null)
  assert.equal(await witness.ask('s', { kind: 'confirm', site: 'az1' }, 'test'), null)
})

test('the internal port takes reports and questions only from the agent that they speak for', async (t) => {
  const { clock, start } = await lab(t)
  const { store, witness, must } = await start('boot-1')
  await register(store, witness)
  await must(opening)
  const authority = await createAuthority('test', Date.now())
  const issue = (identity: Parameters<typeof issueCertificate>[1]['identity']) =>
    issueCertificate(authority, { identity, hosts: ['127.0.0.1'], lifetimeDays: 1 }, Date.now())
  const agents = createAgentBook({ store, clock, silenceMs: 4_000, log })
  const control = await issue({ kind: 'control', region: 'local-1' })
  const server = await serveInternal({
    listen: { host: '127.0.0.1', port: 0 },
    credential: { ca: authority.cert, ...control },
    agents,
    witness,
    incarnation: async () => (await readMeta(store.db)).incarnation,
    log,
  })
  t.after(() => server.close())
  const as = async (identity: Parameters<typeof issue>[0] | null) => {
    const own = identity === null ? {} : await issue(identity)
    const dispatcher = new Agent({ connect: { ca: authority.cert, ...own } })
    t.after(() => dispatcher.destroy())
    return async (path: string, body: unknown) => {
      const reply = await request(`https://127.0.0.1:${server.port}/internal/v1/${path}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: typeof body === 'string' ? body : JSON.stringify(body),
        dispatcher,
      })
      return {
        status: reply.statusCode,
        body: (await reply.body.json()) as Record<string, unknown>,
      }
    }
  }
  const az1 = await as({ kind: 'agent', site: 'az1', agent: 'a' })
  const az3 = await as({ kind: 'agent', site: 'az3', agent: 'a' })
  const user = await as({ kind: 'nbd-client', project: 'p', user: 'u' })

  assert.deepEqual(await az1('report', report('az1', [{ role: 'writer' }])), {
    status: 200,
    body: {
      incarnation: (await readMeta(store.db)).incarnation,
      mark: (await readMeta(store.db)).history_mark,
    },
  })
  assert.equal(agents.at('az1')?.report.run_id, 'r')
  assert.equal(agents.heard('az1'), true)
  clock.forward(4_001)
  assert.equal(agents.heard('az1'), false)
  assert.equal(agents.session('s', 'az1')?.ageMs, 4_001)
  assert.equal(agents.session('t', 'az1'), null)

  const answer = await az1('witness/s', { kind: 'renew', site: 'az1', epoch: 1 })
  assert.equal(answer.status, 200)
  assert.equal(answer.body.lease_ms, LEASE_MS)
  assert.deepEqual(answer.body.record, {
    session: 's',
    epoch: 1,
    state: 'resyncing',
    writer: 'az1',
    replica: 'az2',
    mode: 'witness',
    preferred: 'az1',
  })
  const stale = await az1('witness/s', { kind: 'renew', site: 'az1', epoch: 0 })
  assert.deepEqual([stale.status, stale.body.ok, stale.body.refusal], [200, false, 'STALE_EPOCH'])

  const status = async (reply: Promise<{ status: number }>) => (await reply).status
  assert.equal(await status(az1('witness/unknown', { kind: 'confirm', site: 'az1' })), 404)
  assert.equal(await status(az1('witness/s', { kind: 'confirm', site: 'az2' })), 403)
  assert.equal(await status(az1('report', report('az2', []))), 403)
  assert.equal(await status(az1('report', { ...report('az1', []), agent: 'other' })), 403)
  assert.equal(await status(az3('witness/s', { kind: 'confirm', site: 'az3' })), 404)
  assert.equal(await status(user('witness/s', { kind: 'confirm', site: 'az1' })), 403)
  assert.equal(await status(az1('witness/s', { kind: 'rise', site: 'az1', epoch: 1 })), 400)
  assert.equal(await status(az1('witness/s', '{')), 400)
  assert.equal(
    await status(az1('witness/s', { kind: 'open', site: 'az1', epoch: 1, attempt: 'a'.repeat(8) })),
    400,
  )
  const nobody = await as(null)
  await assert.rejects(nobody('witness/s', { kind: 'confirm', site: 'az1' }))
})

test('commands reach the agent of their site, and every kind of answer has its fault', async (t) => {
  const { clock, start } = await lab(t)
  const { store } = await start('boot-1')
  const authority = await createAuthority('test', Date.now())
  const issue = (identity: Parameters<typeof issueCertificate>[1]['identity']) =>
    issueCertificate(authority, { identity, hosts: ['127.0.0.1'], lifetimeDays: 1 }, Date.now())
  const agentCertificate = await issue({ kind: 'agent', site: 'az1', agent: 'a' })
  let reply: { status: number; body: string } | null = null
  const seen: string[] = []
  const server = createServer(
    { ca: authority.cert, ...agentCertificate, requestCert: true, rejectUnauthorized: true },
    (incoming, outgoing) => {
      seen.push(incoming.url ?? '')
      if (reply === null) return
      outgoing.writeHead(reply.status, { 'content-type': 'application/json' }).end(reply.body)
    },
  )
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  const address = server.address()
  assert.ok(typeof address === 'object' && address !== null)

  const agents = createAgentBook({ store, clock, silenceMs: 4_000, log })
  const credential = {
    ca: authority.cert,
    ...(await issue({ kind: 'control', region: 'local-1' })),
  }
  const sites = createSiteClient(agents, credential, async () => 'this history')
  t.after(() => sites.close())
  const send = (site = 'az1', timeoutMs = 5_000) =>
    sites.command(site, 'session.release', { session: 's', epoch: 1 }, { timeoutMs })
  await assert.rejects(send(), { code: 'SITE_NEVER_SEEN' })
  const here = { command_address: `127.0.0.1:${address.port}` }
  await agents.receive({ ...report('az1', []), ...here })
  // An agent of another site that answers at this address is not taken for this one.
  await agents.receive({ ...report('az2', []), ...here })

  reply = { status: 200, body: '{}' }
  assert.deepEqual(await send(), {})
  assert.deepEqual(seen, ['/internal/v1/commands/session.release'])
  await assert.rejects(send('az2'), { code: 'SITE_UNREACHABLE' })
  const refusal = JSON.stringify({ code: 'STALE_EPOCH', text: 'Older.', hint: 'Look.' })
  reply = { status: 409, body: refusal }
  const error = await send().catch((caught: unknown) => caught)
  assert.equal(refusalCode(error), 'STALE_EPOCH')
  reply = { status: 503, body: refusal }
  await assert.rejects(send(), { code: 'SITE_BUSY' })
  for (const odd of [
    { status: 200, body: '[]' },
    { status: 200, body: 'text' },
    { status: 500, body: '{}' },
  ]) {
    reply = odd
    await assert.rejects(send(), { code: 'SITE_ANSWER_INVALID' })
  }
  reply = null
  await assert.rejects(send('az1', 100), { code: 'SITE_UNREACHABLE' })
  server.closeAllConnections()
  server.close()
  await assert.rejects(send(), { code: 'SITE_UNREACHABLE' })
})

test('a restarted control plane knows where the agents were and for how long they have been silent', async (t) => {
  const { clock, start } = await lab(t)
  const { store } = await start('boot-1')
  const before = createAgentBook({ store, clock, silenceMs: 4_000, log })
  await before.receive(report('az1', [{}]))
  const after = createAgentBook({ store, clock, silenceMs: 4_000, log })
  assert.equal(after.at('az1'), null)
  await after.refresh()
  assert.equal(after.at('az1')?.report.command_address, '127.0.0.1:1')
  assert.equal(after.list().length, 1)
})

test('a control plane that was down takes no site for silent before it has listened itself', async (t) => {
  const { clock, start } = await lab(t)
  const { store } = await start('boot-1')
  const before = createAgentBook({ store, clock, silenceMs: 4_000, log })
  await before.receive(report('az1', [{}]))
  const later = { ...clock, wallMs: () => clock.wallMs() + 60_000 }
  const after = createAgentBook({ store, clock: later, silenceMs: 4_000, log })
  await after.refresh()
  assert.ok((after.at('az1')?.ageMs ?? 0) >= 60_000, 'the age is shown as it is')
  assert.ok(after.heard('az1'))
  assert.ok(!after.heard('az2'), 'a site that never reported is not heard')
  clock.forward(4_001)
  assert.ok(!after.heard('az1'))
})
