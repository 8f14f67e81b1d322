/* Question: how fast does the API answer when there is much to know: 1,000 protection groups with 10,000 pairs, 50 clients at once?
 *
 * The public API over SQLite on real HTTP, in this process; the clients are another process that keeps a connection per client. The rows are
 * seeded: nobody made these groups, and no site holds their disks. What the two sites would say about them is handed over once
 * a second without the internal port, so its cost (parsing two reports of a thousand sessions) is not in the figures.
 *
 *   reads     50 clients ask for one group, one pair or one job, the next thing as soon as they have the answer. Pages of lists, by offset, name and
 *             group, are asked for with a pause of 100 ms: ten times as often as any known client does. Without a pause they are measured as well, but
 *             nothing is promised: that is how many pages the process makes in a second, and nothing else. The figure is the 99th percentile.
 *             Whole lists of 1,000 are apart: they are what one client asks for now and then.
 *   jobs      50 clients create a group each and ask for its job every 50 ms until it has ended; from the request to the answer that says so.
 *   an hour   the same reads and jobs with 3,600 ended operations more in the database, and with ten times that; the ratio to before.
 *
 * What would make it meaningless: other processes (weighed; a batch that was disturbed is repeated, and marked when that did not help);
 * answers that are not 200, or shorter than asked for (checked). */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'
import { newHexId, newId } from '#base/ids.ts'
import { listDomains, setQuotaLimit } from '#control/resources/surroundings.ts'
import type { Store } from '#control/store/store.ts'
import { UNLIMITED } from '#domain/quota.ts'
import { ApiLab, SITES } from '../test/support/api.ts'
import { type GroupsInSync, insertGroupsInSync, reportOf } from '../test/support/group-rows.ts'
import { disturbedOf, Lines, round, undisturbed, weighed } from './lib/lines.ts'
import { machineFacts } from './lib/machine.ts'
import type { ClientsAnswer, ClientsTask } from './lib/api-clients.ts'

const GROUPS = 1_000
const PAIRS_PER_GROUP = 10
const CLIENTS = 50
const READS = 100
const PAUSE_MS = 100
const WHOLE_LISTS = 20
const READ_BOUND_MS = 50
const JOB_BOUND_MS = 1_000
/** One a second for an hour, and ten hours of them. */
const HOURS = [1, 10]
const SLOWDOWN_MAX = 1.2

export async function benchApi(options: { readonly json: boolean }): Promise<void> {
  const lines = new Lines(options.json, machineFacts(tmpdir()))
  const lab = await ApiLab.start({ rate: { burst: 1e9, perSecond: 1e9 } })
  const clients = fork(fileURLToPath(new URL('./lib/api-clients.ts', import.meta.url)), {
    execArgv: ['--disable-warning=ExperimentalWarning'],
  })
  let reports: NodeJS.Timeout | undefined
  try {
    const project = lab.admin.project_id
    const token = await lab.adminToken()
    const [domain] = await listDomains(lab.store.db)
    const { vpcs } = (
      await lab.call({ url: `/v1/${project}/vpcs`, headers: { 'x-auth-token': token } })
    ).body as { vpcs: { id: string }[] }
    const seeded = await insertGroupsInSync(lab.store, project, {
      groups: GROUPS,
      pairsPerGroup: PAIRS_PER_GROUP,
      domain: domain?.id ?? '',
    })
    await insertOperations(lab.store, project, seeded, 100)
    await lab.store.write((tx) => setQuotaLimit(tx, project, 'server_groups', UNLIMITED))
    const say = async () =>
      await Promise.all(SITES.map((site) => lab.agents.receive(reportOf(site, seeded.sessions))))
    await say()
    reports = setInterval(() => void say(), 500)
    lab.operations.start()
    const origin = await lab.listen()

    const run = async (task: Omit<ClientsTask, 'origin' | 'token' | 'project'>) => {
      const answer = once(clients, 'message')
      clients.send({ ...task, origin, token, project })
      const [outcome] = (await answer) as [ClientsAnswer]
      if ('error' in outcome) throw new Error(outcome.error)
      return outcome.times.toSorted((a, b) => a - b)
    }
    const pids = clients.pid === undefined ? [] : [clients.pid]
    const at = (times: readonly number[], share: number) =>
      times[Math.ceil(times.length * share) - 1] ?? Number.NaN
    const measure = async (
      name: string,
      bound: number | null,
      task: Parameters<typeof run>[0],
    ): Promise<number> => {
      await run({ ...task, each: Math.ceil(task.each / 10) })
      const sample = await undisturbed(() => weighed(pids, () => run(task)))
      const p99 = at(sample.value, 0.99)
      lines.show(
        {
          case: name,
          figure: round(p99, 1),
          unit: 'ms',
          bound,
          samples: 1,
          disturbed: disturbedOf([sample]),
          also: {
            clients: task.clients,
            requests: sample.value.length,
            median: round(at(sample.value, 0.5), 1),
            most: round(at(sample.value, 1), 1),
          },
        },
        'most',
      )
      return p99
    }

    const operations = await lab.store.db.selectFrom('operations').select('id').limit(100).execute()
    const base = `/v1/${project}`
    const single = [
      ...seeded.groups.slice(0, 40).map(({ id }) => `${base}/server-groups/${id}`),
      ...seeded.pairs.slice(0, 40).map(({ id }) => `${base}/replications/${id}`),
      ...operations.slice(0, 40).map(({ id }) => `${base}/jobs/${id}`),
    ]
    const pages = seeded.groups
      .slice(0, 40)
      .flatMap(({ id, name }, index) => [
        `${base}/server-groups?limit=20&offset=${index * 20}`,
        `${base}/server-groups?name=${name}`,
        `${base}/replications?server_group_id=${id}`,
        `${base}/replications?limit=20&offset=${index * 200}`,
      ])
    const whole = [
      `${base}/server-groups`,
      `${base}/replications`,
      `${base}/task-center/failure-jobs?resource_type=replications`,
    ]
    const read = { method: 'read' as const, each: READS, clients: CLIENTS, pauseMs: 0 }
    const paused = { ...read, pauseMs: PAUSE_MS }
    const reads = {
      single: await measure('one group, pair or job', READ_BOUND_MS, { ...read, paths: single }),
      pages: await measure('pages of 20, and by name or group, with pauses', READ_BOUND_MS, {
        ...paused,
        paths: pages,
      }),
    }
    await measure('the same without pauses', null, { ...read, paths: pages })
    for (const path of whole) {
      await measure(`whole list: ${path.slice(base.length + 1)}`, READ_BOUND_MS, {
        method: 'read',
        paths: [path],
        each: WHOLE_LISTS,
        clients: 1,
        pauseMs: 0,
      })
    }
    const groupBody = {
      server_group: {
        name: 'bench',
        source_availability_zone: SITES[0],
        target_availability_zone: SITES[1],
        domain_id: domain?.id ?? '',
        source_vpc_id: vpcs[0]?.id ?? '',
      },
    }
    const job = {
      method: 'job' as const,
      paths: [`${base}/server-groups`],
      body: groupBody,
      each: 2,
      clients: CLIENTS,
      pauseMs: 0,
    }
    const jobs = await measure('create a group, to the end of its job', JOB_BOUND_MS, job)

    let hours = 0
    for (const upTo of HOURS) {
      await insertOperations(lab.store, project, seeded, 3_600 * (upTo - hours))
      hours = upTo
      const label = `${upTo} h of a job a second later`
      const after = {
        single: await measure(`${label}: one group, pair or job`, READ_BOUND_MS, {
          ...read,
          paths: single,
        }),
        pages: await measure(`${label}: pages`, READ_BOUND_MS, { ...paused, paths: pages }),
        jobs: await measure(`${label}: create a group`, JOB_BOUND_MS, job),
      }
      await measure(`${label}: failed tasks`, READ_BOUND_MS, {
        method: 'read',
        paths: [whole[2] ?? ''],
        each: WHOLE_LISTS,
        clients: 1,
        pauseMs: 0,
      })
      for (const [name, ratio] of [
        ['one group, pair or job', after.single / reads.single],
        ['pages', after.pages / reads.pages],
        ['create a group', after.jobs / jobs],
      ] as const) {
        lines.show(
          {
            case: `${label}: ${name}, times as long`,
            figure: round(ratio, 2),
            unit: '',
            bound: SLOWDOWN_MAX,
            samples: 1,
            disturbed: 0,
          },
          'most',
        )
      }
    }
  } finally {
    clearInterval(reports)
    clients.kill()
    await lab.stop()
  }
}

/** Operations that ended, one in twenty of them in failure, as an hour of work on the groups leaves them. */
async function insertOperations(
  store: Store,
  project: string,
  { pairs }: GroupsInSync,
  count: number,
): Promise<void> {
  await store.write(async (tx) => {
    const last = await tx
      .selectFrom('operations')
      .select((eb) => eb.fn.max('ordinal').as('ordinal'))
      .executeTakeFirst()
    const from = Number(last?.ordinal ?? 0)
    for (let at = 1; at <= count; at++) {
      const pair = pairs[at % pairs.length]
      const failed = at % 20 === 0
      const id = newHexId()
      await tx
        .insertInto('operations')
        .values({
          id,
          ordinal: from + at,
          kind: 'pair.expand',
          version: 1,
          project,
          resource_type: 'replication-pair',
          resource_id: pair?.id ?? newId(),
          parent: null,
          root: id,
          input: '{}',
          status: failed ? 'failed' : 'succeeded',
          step: 1,
          progress: 100,
          joining: 0,
          cancel_wanted: 0,
          attempts: 1,
          run_at: 0,
          error_code: failed ? 'SITE_UNREACHABLE' : null,
          fail_reason: failed ? 'The agent of the site did not answer.' : null,
          failed_step: failed ? 'grow' : null,
          entities: JSON.stringify({
            server_group_id: pair?.group_id ?? '',
            replication_pair_id: pair?.id ?? '',
            name: pair?.name ?? '',
          }),
          created_at: at,
          begin_at: at,
          end_at: Date.now(),
          lease_owner: null,
          lease_beat: 0,
          lease_beat_at: null,
        })
        .execute()
    }
  })
}
