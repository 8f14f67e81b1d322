import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client'
import { listAllGroups, productionAz } from '#control/resources/groups.ts'
import { readOwnership } from '#control/resources/sync.ts'
import type { AgentRegistry } from '#control/sites/agents.ts'
import type { Store } from '#control/store/store.ts'
import type { ProtectionGroupRow } from '#control/store/tables/resources.ts'
import { oldestOf, verifiedOf } from './verified.ts'

/** Figures of this process in the form that Prometheus reads. */
export interface Metrics {
  /** Counts one answer. */
  answered(answer: {
    readonly dialect: string
    readonly method: string
    readonly status: number
    readonly ms: number
  }): void
  /** The whole page; reads the present state. */
  page(): Promise<{ readonly contentType: string; readonly text: string }>
}

export function createMetrics(sources: {
  readonly store: Store
  readonly agents: AgentRegistry
  readonly sites: readonly string[]
}): Metrics {
  const { store, agents, sites } = sources
  const registry = new Registry()
  const registers = [registry]
  collectDefaultMetrics({ register: registry })

  const answers = new Counter({
    name: 'holdfast_http_answers_total',
    help: 'Answers of the public API.',
    labelNames: ['dialect', 'method', 'status'],
    registers,
  })
  const seconds = new Histogram({
    name: 'holdfast_http_answer_seconds',
    help: 'Time from the head of a request to the end of its answer.',
    labelNames: ['dialect'],
    buckets: [0.001, 0.005, 0.02, 0.1, 0.5, 2, 10],
    registers,
  })
  const silence = new Gauge({
    name: 'holdfast_site_silence_seconds',
    help: 'Time since an agent of the site last reported. Absent: none ever has.',
    labelNames: ['site'],
    registers,
  })
  const heard = new Gauge({
    name: 'holdfast_site_heard',
    help: '1 while the site reports within the configured silence.',
    labelNames: ['site'],
    registers,
  })
  const states = new Gauge({
    name: 'holdfast_group_state',
    help: 'The state in the ownership record of each group: 1 for the one it is in.',
    labelNames: ['group', 'site', 'state'],
    registers,
  })
  const operations = new Gauge({
    name: 'holdfast_operations',
    help: 'Operations that have not ended.',
    labelNames: ['status'],
    registers,
  })

  const servers = new Gauge({
    name: 'holdfast_servers',
    help: 'Servers of all projects, by site and by what its hypervisor said last of them.',
    labelNames: ['site', 'power'],
    registers,
  })

  const verified = new Gauge({
    name: 'holdfast_group_verified_timestamp_seconds',
    help: 'Since when every replicating pair of the group is verified, seconds since 1970. Absent: one never was.',
    labelNames: ['group'],
    registers,
  })
  const mismatched = new Gauge({
    name: 'holdfast_group_mismatched_bytes',
    help: 'What the last verifications found different between the sites and did not repair.',
    labelNames: ['group'],
    registers,
  })
  const compared = new Gauge({
    name: 'holdfast_verify_compared_bytes',
    help: 'Compared by verifications since the agent of the site started, over its sessions.',
    labelNames: ['site'],
    registers,
  })
  const blocks = new Gauge({
    name: 'holdfast_verify_blocks',
    help: 'Blocks that verifications found different, repaired, or compared again because clients wrote to them, since the agent started.',
    labelNames: ['site', 'what'],
    registers,
  })

  function collectVerified(groups: readonly ProtectionGroupRow[]): void {
    verified.reset()
    mismatched.reset()
    for (const { id, source_az, target_az } of groups) {
      const known = verifiedOf(agents, id, [source_az, target_az])
      if (known.pairs.size === 0) continue
      const oldest = oldestOf(known, [...known.pairs.keys()])
      if (oldest !== null) verified.set({ group: id }, oldest / 1000)
      const left = [...known.pairs.values()].reduce((sum, one) => sum + one.mismatched_bytes, 0)
      mismatched.set({ group: id }, left)
    }
    for (const site of sites) {
      const totals = (agents.at(site)?.report.sessions ?? []).flatMap(
        ({ verify }) => verify?.totals ?? [],
      )
      if (totals.length === 0) continue
      const sum = (of: (one: (typeof totals)[number]) => number) =>
        totals.reduce((all, one) => all + of(one), 0)
      compared.set(
        { site },
        sum((one) => one.compared_bytes),
      )
      blocks.set(
        { site, what: 'mismatched' },
        sum((one) => one.mismatched_blocks),
      )
      blocks.set(
        { site, what: 'repaired' },
        sum((one) => one.repaired_blocks),
      )
      blocks.set(
        { site, what: 'rechecked' },
        sum((one) => one.rechecked_blocks),
      )
    }
  }

  async function collectServers(): Promise<void> {
    servers.reset()
    const rows = await store.db
      .selectFrom('servers')
      .select((eb) => ['az', 'power', eb.fn.countAll<number>().as('count')])
      .groupBy(['az', 'power'])
      .execute()
    for (const { az: site, power, count } of rows) servers.set({ site, power }, Number(count))
  }

  async function collect(): Promise<void> {
    await collectServers()
    for (const site of sites) {
      const age = agents.at(site)?.ageMs
      if (age !== undefined) silence.set({ site }, age / 1000)
      heard.set({ site }, agents.heard(site) ? 1 : 0)
    }
    states.reset()
    const groups = await listAllGroups(store.db)
    collectVerified(groups)
    const records = await readOwnership(
      store.db,
      groups.map((group) => group.id),
    )
    for (const group of groups) {
      const record = records.get(group.id)
      const site = record?.writer ?? productionAz(group)
      states.set({ group: group.id, site, state: record?.state ?? 'closed' }, 1)
    }
    const counts = await store.db
      .selectFrom('operations')
      .select((eb) => ['status', eb.fn.countAll<number>().as('count')])
      .where('status', 'in', ['pending', 'running'])
      .groupBy('status')
      .execute()
    for (const status of ['pending', 'running']) {
      const row = counts.find((one) => one.status === status)
      operations.set({ status }, Number(row?.count ?? 0))
    }
  }

  return {
    answered({ dialect, method, status, ms }) {
      answers.inc({ dialect, method, status: String(status) })
      seconds.observe({ dialect }, ms / 1000)
    },
    async page() {
      await collect()
      return { contentType: registry.contentType, text: await registry.metrics() }
    },
  }
}
