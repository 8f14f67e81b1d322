/* Question: how fast are the two sites of a group compared with each other?
 *
 * A system as `holdfast up` starts it, one pair of 1 GiB of random bytes, just written, so that both sites have it in the page cache; nobody else uses it. Figure: bytes
 * compared per second of processor time of the busier of the two agents, everything that it does meanwhile included. Bound: 1 GB. Beside it: the time on the clock.
 *
 * What would make it meaningless: another group (none there); pages that went to disk and have to be read again (the volume is a fraction of memory);
 * processor time is in ticks of 10 ms, a percent of what is measured. */
import { randomFillSync } from 'node:crypto'
import { tmpdir } from 'node:os'
import { disturbedOf, Lines, medianOf, round, weighed } from './lib/lines.ts'
import { machineFacts, processorSeconds } from './lib/machine.ts'
import { SITES, System } from './lib/system.ts'

const MIB = 1024 * 1024
const SIZE = 1024 * MIB
const PIECE = 4 * MIB
const LIMIT_MS = 60_000
const BOUND_GB = 1

interface Run {
  readonly state: string
  readonly started_at: number
  readonly ended_at: number | null
  readonly compared_bytes: number
  readonly mismatched_bytes: number
}

export interface VerifyOptions {
  readonly json: boolean
  readonly pairs: number
}

export async function benchVerify(options: VerifyOptions): Promise<void> {
  const lines = new Lines(options.json, machineFacts(tmpdir()))
  const system = await System.start([])
  try {
    const [group] = await system.groups(1, 1)
    const pair = group?.pairs[0]
    if (group === undefined || pair === undefined) throw new Error('no group')
    await fill(system, pair)
    const samples = []
    for (let i = 0; i < options.pairs; i++) {
      samples.push(await weighed(system.pids, () => compare(system, group.id)))
    }
    lines.show(
      {
        case: 'verification, GB per second of one core',
        figure: round(
          medianOf(samples, ({ value }) => value.perCore),
          2,
        ),
        unit: 'GB/s',
        bound: BOUND_GB,
        samples: samples.length,
        disturbed: disturbedOf(samples),
        also: {
          gb_per_second_of_the_clock: round(
            medianOf(samples, ({ value }) => value.perSecond),
            2,
          ),
        },
      },
      'least',
    )
  } finally {
    await system.close()
  }
}

async function fill(system: System, pair: string): Promise<void> {
  const client = await system.connect('az1', pair)
  const piece = Buffer.alloc(PIECE)
  for (let at = 0; at < SIZE; at += PIECE) await client.write(at, randomFillSync(piece))
  await client.flush()
  await client.disconnect()
}

async function compare(
  system: System,
  group: string,
): Promise<{ perCore: number; perSecond: number }> {
  const { lab } = system
  const path = `/api/v1/groups/${group}/verify`
  const spent = () => SITES.map((site) => processorSeconds(system.agentPid(site)))
  const shown = async () =>
    (await lab.ok<{ verify: { operation_id: string | null; run: Run | null } }>(200, 'GET', path))
      .verify
  const before = spent()
  await lab.ok(202, 'POST', path, {})
  const { run } = await lab.until(
    'the end of the verification',
    shown,
    ({ operation_id, run: seen }) => operation_id === null && seen !== null,
    LIMIT_MS,
  )
  if (run?.state !== 'done' || run.ended_at === null || run.mismatched_bytes > 0) {
    throw new Error(`the verification has not gone through: ${JSON.stringify(run)}`)
  }
  const busier = Math.max(...spent().map((now, index) => now - (before[index] ?? 0)))
  const gb = run.compared_bytes / 1e9
  return { perCore: gb / busier, perSecond: gb / ((run.ended_at - run.started_at) / 1000) }
}
