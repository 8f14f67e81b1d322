/** Short named stories in the simulated world, each a mistake that was made once. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { OwnershipRequest } from '#domain/ownership.ts'
import { calmWorld } from './calm-world.ts'

test('a group that is stopped right after a failover is not served at two sites', () => {
  for (let seed = 1; seed <= 20; seed++) {
    const { world, operator, until, run, isolate } = calmWorld(seed)
    isolate('az1', ['az2', 'witness'])
    run('failover')
    operator.start('close')
    // The observer throws when two sites may answer at once.
    until('az2 serves', () => world.agentAt(world.site('az2'))?.clients.plain === true)
    world.timeline.runUntil(world.timeline.nowMs + 10_000)
  }
})

test('a writer that is cut off answers nothing once its contact is over, and goes on when the cut ends', () => {
  const { world, until, isolate } = calmWorld(5)
  const agent = world.agentAt(world.site('az1'))
  isolate('az1', ['az2'])
  until('held', () => agent?.status().phase === 'held')
  assert.equal(agent?.status().answering, false)
  assert.equal(world.witness.stored.state, 'in_sync', 'nobody decided anything')
  world.network.heal('az1', 'az2')
  world.network.heal('az2', 'az1')
  until('following', () => agent?.status().phase === 'following')
  assert.equal(world.coverage.counts.get('copy all'), 1, 'no second copy')
})

test('power lost at the replica costs a copy of the dirty regions only, under a record that says so', () => {
  const { world, until } = calmWorld(6)
  const site = world.site('az2')
  world.observer.losePower(site)
  world.timeline.runUntil(world.timeline.nowMs + 500)
  site.host.boot()
  world.startAgent(site)
  until('drop', () => world.witness.stored.state === 'resyncing')
  until('in_sync again', () => world.witness.stored.state === 'in_sync')
  assert.equal(world.coverage.counts.get('copy delta with regions'), 1)
  assert.equal(world.coverage.counts.get('copy all'), 1, 'the first one')
})

test('power lost at the writer is made good from the replica before anything is served', () => {
  const { world, until } = calmWorld(7)
  const site = world.site('az1')
  world.observer.losePower(site)
  world.timeline.runUntil(world.timeline.nowMs + 500)
  site.host.boot()
  world.startAgent(site)
  until('following', () => world.agentAt(site)?.status().phase === 'following')
  assert.equal(world.coverage.counts.get('reconcile dirty'), 1)
  assert.equal(world.coverage.counts.get('move drop from in_sync'), undefined)
})

test('the death of the replica process alone needs no copy at all', () => {
  const { world, until } = calmWorld(8)
  const site = world.site('az2')
  world.killAgent(site)
  world.timeline.runUntil(world.timeline.nowMs + 300)
  world.startAgent(site)
  until('following', () => world.agentAt(site)?.status().phase === 'following')
  world.timeline.runUntil(world.timeline.nowMs + 1_000)
  assert.equal(world.coverage.counts.get('move drop from in_sync'), undefined)
  assert.equal(world.coverage.counts.get('copy all'), 1, 'the first one')
})

test('production dies in the resync after a stop and a start: the other site goes back to what it held when the group was stopped', () => {
  for (let seed = 1; seed <= 10; seed++) {
    const { world, operator, until, run } = calmWorld(seed)
    const [production, copy] = world.sites
    run('close')
    const stopped = copy.disk.current.slice()
    if (seed % 2 === 0) world.observer.losePower(copy)
    world.timeline.runUntil(world.timeline.nowMs + 2_000)
    if (seed % 2 === 0) copy.host.boot()
    world.startAgent(copy)
    world.copyStepMs = 300
    run('open')
    const differs = () => copy.disk.current.some((value, block) => value !== stopped[block])
    until('the middle of the resync', differs)
    assert.equal(world.witness.stored.state, 'resyncing')
    world.observer.losePower(production)
    run('failover')
    assert.equal(operator.result, 'ok')
    const agent = world.agentAt(copy)
    assert.equal(world.coverage.counts.get('went back to what was left'), 1)
    // The observer compares block by block when the copy is set back.
    until('az2 serves', () => agent?.status().answering === true)
  }
})

test('a lease lives on through a stop and a start, and through a freeze and a thaw: nobody takes over before it has ended', () => {
  for (const changes of [
    ['close', 'open'],
    ['freeze', 'thaw'],
  ] as const) {
    const { world, until, isolate } = calmWorld(9)
    const { witness, timeline } = world
    const writer = world.agentAt(world.site('az1'))
    isolate('az1', ['az2'])
    until('alone', () => writer?.status().phase === 'alone' && writer.status().answering)
    isolate('az1', ['witness'])
    let attempt = 0
    const decide = (request: object): boolean => {
      let ok: boolean | null = null
      const { epoch } = witness.stored
      const named = { epoch, attempt: `attempt-${++attempt}`, writer: 'az1', replica: 'az2' }
      witness.serve({ ...named, ...request } as OwnershipRequest, (answer) => (ok = answer.ok))
      until('decided', () => ok !== null)
      return ok === true
    }
    for (const kind of changes) assert.ok(decide({ kind }), kind)
    assert.ok(writer?.status().answering, 'it has heard of nothing')
    until('a failover', () => decide({ kind: 'failover', force: true, consent: false }))
    assert.equal(writer?.status().answering, false)
    timeline.runUntil(timeline.nowMs + 10_000)
  }
})

test('a stopped group that fails over is not served at two sites, although production has not heard of the stop and was in touch with the other site until then', () => {
  let served = 0
  for (let seed = 1; seed <= 20; seed++) {
    const { world, operator, isolate } = calmWorld(seed)
    const [production, dr] = world.sites
    const { timeline, witness } = world
    const committed = witness.onCommit
    witness.onCommit = (decided) => {
      committed(decided)
      if (decided.kind === 'close') isolate(production.name, ['witness'])
    }
    const pass = (until: () => boolean) => {
      const limit = timeline.nowMs + 60_000
      while (!until() && timeline.nowMs < limit) timeline.runUntil(timeline.nowMs + 1)
    }
    operator.start('close')
    pass(() => dr.left)
    isolate(production.name, [dr.name])
    pass(() => operator.busy === null)
    operator.start('failover-paused')
    // The observer throws when two sites may answer at once.
    pass(() => dr.plain === 'standalone')
    timeline.runUntil(timeline.nowMs + 10_000)
    if (dr.plain === 'standalone') served++
  }
  assert.ok(served > 10, `${served} were served`)
})

test('what production wrote while its group was stopped is kept when the group fails over and is started again', () => {
  for (let seed = 1; seed <= 5; seed++) {
    const { world, until, run } = calmWorld(seed)
    const [production, dr] = world.sites
    run('close')
    world.timeline.runUntil(world.timeline.nowMs + 2_000)
    const wrote = production.disk.current.slice()
    assert.notDeepEqual(wrote, dr.disk.current)
    run('failover-paused')
    assert.deepEqual([production.plain, dr.plain], ['standby', 'standalone'])
    world.timeline.runUntil(world.timeline.nowMs + 2_000)
    run('open')
    until('in_sync', () => world.witness.stored.state === 'in_sync')
    world.timeline.runUntil(world.timeline.nowMs + 3_000)
    const [kept] = production.divergences
    assert.ok(
      kept?.image.some(
        (value, block) => value === wrote[block] && value !== dr.disk.current[block],
      ),
    )
  }
})

/** The witness orders the end of the session, forgets it in a restore, and is trusted again before the order arrives anywhere. */
function lateClose(seed: number) {
  const lab = calmWorld(seed)
  const { world, operator, until } = lab
  const { network, witness, timeline } = world
  witness.onCommit = ({ kind }) => {
    if (kind === 'close') for (const { name } of world.sites) network.cut('witness', name)
  }
  operator.start('close')
  until('closed', () => witness.stored.state === 'closed')
  timeline.runUntil(timeline.nowMs + 100)
  witness.kill()
  assert.ok(witness.restore())
  operator.forget()
  witness.start()
  until('trusted', () => {
    // Answers to reports go over connections of their own.
    for (const agent of world.agents.values()) agent.mark = witness.mark
    return witness.trusted
  })
  const arrive = () => {
    for (const { name } of world.sites) network.heal('witness', name)
  }
  return { ...lab, arrive }
}

test('what a restored witness decides is told apart from what it has forgotten, although both went out from the same epoch', () => {
  for (let seed = 1; seed <= 20; seed++) {
    const { world, operator, until, run, arrive } = lateClose(seed)
    operator.start('freeze')
    until('frozen', () => world.witness.stored.state === 'frozen')
    arrive()
    until('freeze ends', () => operator.busy === null)
    run('tell')
    run('thaw')
    until('in_sync', () => world.witness.stored.state === 'in_sync')
  }
})

test('the end of a session, ordered by a witness that has forgotten it since, ends nothing', () => {
  let refused = 0
  for (let seed = 1; seed <= 20; seed++) {
    const { world, arrive } = lateClose(seed)
    arrive()
    world.timeline.runUntil(world.timeline.nowMs + 2_000)
    for (const agent of world.agents.values()) assert.notEqual(agent.session.phase, 'closed')
    refused += world.coverage.counts.get('command-refused of another history') ?? 0
  }
  assert.ok(refused > 0, 'some of the orders arrived')
})

/** The preferred site goes on alone, cut off from everybody; meanwhile the witness is restored from some time before. */
function restoredBesideAlone(seed: number) {
  const lab = calmWorld(seed, 1)
  const { world, operator, until, run, isolate } = lab
  const { network, witness, timeline } = world
  const alone = world.arbitration.preferred
  const writer = world.site(alone)
  const peer = world.peerOf(writer)
  // Epochs that the restored database may lack.
  while (witness.stored.epoch < 4 || witness.stored.writer !== alone) {
    run('reverse')
    timeline.runUntil(timeline.nowMs + 1_000)
  }
  until('following', () => world.agentAt(writer)?.status().phase === 'following')
  isolate(alone, [peer.name, 'witness'])
  const agent = world.agentAt(writer)
  until('alone', () => agent?.session.gate.mode === 'unwitnessed' && agent.status().answering)
  timeline.runUntil(timeline.nowMs + 1_000)
  witness.kill()
  assert.ok(witness.restore())
  operator.forget()
  witness.start()
  const heal = (site: string) => {
    network.heal(alone, site)
    network.heal(site, alone)
  }
  return { ...lab, alone, peer, heal }
}

test('a witness restored from before what the preferred site went on alone under heals by itself, and never takes the group for in sync', () => {
  for (let seed = 1; seed <= 20; seed++) {
    const { world, until, alone, peer, heal } = restoredBesideAlone(seed)
    const { witness } = world
    const states: string[] = []
    witness.onAdopt = ({ record }) => states.push(`${record.state} ${record.writer}`)
    heal('witness')
    // The site goes on meanwhile: what it may do does not hang on a witness that knows less.
    until('trusted', () => witness.trusted)
    assert.deepEqual(states, [`solo ${alone}`])
    heal(peer.name)
    until('in_sync', () => witness.stored.state === 'in_sync')
    world.timeline.runUntil(world.timeline.nowMs + 1_000)
  }
})
