/* Question: how long does a page of backups take when there are 100,000 of them?
 *
 * The public API over SQLite in this process, with 100,000 rows of backups that nobody made: 1,000 servers, 20 policies, one in fifty failed, one in ten came
 * from another region; each with a disk, a record of a copy, and a tag. Every page is asked for 60 times, one after the other, by a caller with a
 * token; the figure is the 95th percentile from the request to the last byte of the answer, without sockets. Bound: 100 ms for a page of 100 (the largest
 * page, of 1,000, is shown and not bound: most of it is 2 MB of JSON).
 *
 * What would make it meaningless: other processes (weighed; a batch that was disturbed is repeated, and marked when that did not help); pages
 * that are shorter than asked for (checked). */
import { tmpdir } from 'node:os'
import { newId } from '#base/ids.ts'
import type { Store } from '#control/store/store.ts'
import { ApiLab } from '../test/support/api.ts'
import { Lines } from './lib/lines.ts'
import { machineFacts } from './lib/machine.ts'
import { measurePage } from './lib/pages.ts'

const BACKUPS = 100_000
const SERVERS = 1_000
const POLICIES = 20
const REQUESTS = 60
const WARM_UP = 5
const BOUND_MS = 100
const PAGE = 100
const PROVIDER = 'fc4d5750-22e7-4798-8a46-f48f62c4c1da'
const START = Date.UTC(2026, 0, 1)
const STEP_MS = 60_000

export async function benchBackupLists(options: { readonly json: boolean }): Promise<void> {
  const lines = new Lines(options.json, machineFacts(tmpdir()))
  const lab = await ApiLab.start()
  try {
    const headers = { 'x-auth-token': await lab.adminToken(), host: '127.0.0.1:7410' }
    const project = lab.admin.project_id
    await seed(lab.store, project)
    const middle = idOf(BACKUPS / 2)
    const items = `checkpoint_items?limit=${PAGE}`
    const time = (at: number) => new Date(START + at * STEP_MS).toISOString().slice(0, 19)
    const list = `providers/${PROVIDER}/checkpoints?limit=${PAGE}`
    const cases = [
      ['newest', items, PAGE],
      ['in the middle, by marker', `${items}&marker=${middle}`, PAGE],
      ['in the middle, by offset', `${items}&offset=50000`, PAGE],
      ['oldest first', `${items}&sort=created_at:asc`, PAGE],
      ['by name', `${items}&sort=name:asc`, PAGE],
      ['by status', `${items}&sort=status:asc`, PAGE],
      ['by moment', `${items}&sort=protected_at:desc`, PAGE],
      ['by time of change', `${items}&sort=updated_at:desc`, PAGE],
      ['of a status', `${items}&status=error`, PAGE],
      ['part of a name', `${items}&name=backup-777`, PAGE],
      ['a name that is not there', `${items}&name=nothing`, 0],
      ['part of a server name', `${items}&resource_name=server-77`, PAGE],
      ['of a server', `${items}&resource_id=${idOf(7, 1)}`, PAGE],
      ['of a policy', `${items}&policy_id=${idOf(7, 2)}`, PAGE],
      ['of a checkpoint', `${items}&checkpoint_id=${idOf(777, 3)}`, 1],
      ['of a zone', `${items}&az=az2`, PAGE],
      ['of an address', `${items}&ip=192.168.0.7`, PAGE],
      ['that came from elsewhere', `${items}&image_type=replication`, PAGE],
      ['of some days', `${items}&start_time=${time(40_000)}&end_time=${time(50_000)}`, PAGE],
      ['failed of a policy', `${items}&policy_id=${idOf(7, 2)}&status=error`, PAGE],
      ['all counted', 'checkpoint_items/count', null],
      ['failed counted', 'checkpoint_items/count?status=error', null],
      ['the largest page', 'checkpoint_items?limit=1000', 1_000],
      ['checkpoints', list, PAGE],
      ['checkpoints of a policy', `${list}&plan_id=${idOf(7, 2)}`, PAGE],
      ['checkpoints of a status', `${list}&status=error`, PAGE],
      ['copies', `replication_records?limit=${PAGE}`, PAGE],
      ['failed copies', `replication_records?limit=${PAGE}&status=fail`, PAGE],
    ] as const
    for (const [name, path, count] of cases) {
      await measurePage(lab, lines, {
        name,
        url: `/v1/${project}/${path}`,
        headers,
        rows: count,
        warmUp: WARM_UP,
        requests: REQUESTS,
        share: 0.95,
        boundMs: count === 1_000 ? null : BOUND_MS,
      })
    }
  } finally {
    await lab.stop()
  }
}

/** The same in every run; `kind` keeps servers, policies and checkpoints apart. */
const idOf = (number: number, kind = 0): string =>
  `${kind}0000000-0000-4000-8000-${String(number).padStart(12, '0')}`

async function seed(store: Store, project: string): Promise<void> {
  const PART = 500
  for (let from = 0; from < BACKUPS; from += PART) {
    const numbers = Array.from({ length: PART }, (_, at) => from + at)
    await store.write(async (tx) => {
      const times = (at: number) => ({
        created_at: START + at * STEP_MS,
        updated_at: START + at * STEP_MS + 30_000,
      })
      const status = (at: number) => (at % 50 === 7 ? 'error' : 'available')
      for (const part of halves(numbers)) {
        await tx
          .insertInto('checkpoints')
          .values(
            part.map((at) => ({
              id: idOf(at, 3),
              project,
              provider: PROVIDER,
              plan: idOf(at % POLICIES, 2),
              plan_snapshot: JSON.stringify({
                id: idOf(at % POLICIES, 2),
                name: `policy-${at % POLICIES}`,
                provider_id: PROVIDER,
                resources: [],
              }),
              status: status(at),
              scheduled: 1 as const,
              extra_info: null,
              ...times(at),
            })),
          )
          .execute()
        await tx
          .insertInto('checkpoint_items')
          .values(
            part.map((at) => ({
              id: idOf(at),
              checkpoint: idOf(at, 3),
              project,
              name: `backup-${at}`,
              description: null,
              status: status(at),
              resource_type: 'OS::Nova::Server',
              resource: idOf(at % SERVERS, 1),
              resource_name: `server-${at % SERVERS}`,
              resource_az: at % 2 === 0 ? 'az1' : 'az2',
              policy: idOf(at % POLICIES, 2),
              scheduled: 1 as const,
              replica: at % 10 === 3 ? (1 as const) : (0 as const),
              copy_from: at % 10 === 3 ? 'elsewhere' : null,
              incremental: 1 as const,
              progress: 100,
              size_mb: 1_024,
              average_speed: 1,
              space_saving: 1,
              copy_status: 'na',
              fail_op: null,
              fail_code: null,
              fail_reason: null,
              backup_data: '{}',
              address: `192.168.0.${(at % SERVERS) % 256}`,
              images: '[]',
              periodic_type: null,
              expires_at: null,
              vault_checkpoint: idOf(at, 4),
              operation: 'o',
              stall_us: 100,
              attachment: null,
              source_policy: null,
              taken_at: START + at * STEP_MS + 1_000,
              finished_at: START + at * STEP_MS + 30_000,
              ...times(at),
            })),
          )
          .execute()
      }
      await tx
        .insertInto('disk_backups')
        .values(
          numbers.map((at) => ({
            id: newId(),
            item: idOf(at),
            project,
            place: 0,
            name: `backup-${at}_disk`,
            system: 1 as const,
            size_gb: 1,
            size_mb: 1_024,
            incremental: 1 as const,
            average_speed: 1,
            space_saving: 1,
            volume: idOf(at % SERVERS, 5),
            volume_name: null,
          })),
        )
        .execute()
      await tx
        .insertInto('replication_records')
        .values(
          numbers.map((at) => ({
            id: newId(),
            project,
            item: idOf(at),
            checkpoint: idOf(at, 3),
            policy: idOf(at % POLICIES, 2),
            status: at % 50 === 7 ? 'fail' : 'success',
            destination_region: 'elsewhere',
            destination_project: project,
            destination_checkpoint: null,
            destination_item: null,
            destination_vault_checkpoint: null,
            scheduled: 1 as const,
            accelerate: 0 as const,
            name: null,
            description: null,
            progress: 100,
            sent_bytes: 1,
            missing_bytes: 1,
            fail_code: null,
            fail_reason: null,
            gone_at: null,
            ...times(at),
          })),
        )
        .execute()
      await tx
        .insertInto('tags')
        .values(
          numbers.map((at) => ({
            project,
            kind: 'backup',
            resource: idOf(at),
            key: 'team',
            value: `t${at % 10}`,
          })),
        )
        .execute()
    })
  }
}

function* halves<T>(list: readonly T[]): Generator<T[]> {
  for (let at = 0; at < list.length; at += 250) yield list.slice(at, at + 250)
}
