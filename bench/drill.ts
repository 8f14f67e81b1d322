/* Question: what does a drill cost the writes of production?
 *
 * A system as `holdfast up` starts it, in processes of their own: a group of pairs of 1 GiB, filled with FILLED_MIB each, in sync. One client writes 4 KiB
 * at random places at a fixed rate, whether the writes before it were answered or not, so that a stall costs every write that falls into it and not only one. A
 * drill is made and deleted meanwhile; it has no servers, so what is seen is the snapshot and the copying alone.
 *
 *   p50, p99   of the time from the moment when a write was due until its answer: in the seconds before the drill, and from its request until its end
 *   most       the longest one
 *
 * The difference is taken within each round and shown with its least and most over the rounds: what a round costs by itself on this machine is in
 * the quiet half as well. On the temporary directory's file system (ext4: the disks are copied) and on XFS in a loop device (blocks are shared).
 *
 * The boot of a guest is measured apart, as seconds from its start to its first success of a probe, in `drills-real.test.ts` and in every report:
 * guests share the cores here, and would be measured instead of the drill.
 *
 * What would make it meaningless: other processes (weighed, marked); a rate that the machine cannot hold without a drill (the quiet half shows it). */
import { randomFillSync } from 'node:crypto'
import { tmpdir } from 'node:os'
import type { NbdClient } from '#client/nbd/client.ts'
import { loopMount } from '../test/support/loop-mount.ts'
import { disturbedOf, Lines, medianOf, round, weighed, type Weighed } from './lib/lines.ts'
import { machineFacts } from './lib/machine.ts'
import { pause, System } from './lib/system.ts'

const MIB = 1024 * 1024
const PAIRS = 2
const FILLED_MIB = 256
const PER_SECOND = 400
const QUIET_MS = 6_000
const WRITE = randomFillSync(Buffer.alloc(4096))
const XFS_MIB = 8 * 1024

export interface DrillOptions {
  readonly json: boolean
  readonly pairs: number
}

interface Half {
  readonly p50: number
  readonly p99: number
  readonly most: number
}

interface Sample {
  readonly quiet: Half
  readonly drill: Half
  /** As the report says, ms. */
  readonly stallMs: number
  readonly cloneMs: number
  readonly kind: string
}

export async function benchDrill(options: DrillOptions): Promise<void> {
  const lines = new Lines(options.json, machineFacts(tmpdir()))
  await onFileSystem(lines, machineFacts(tmpdir()).file_system, options.pairs)
  const mount = await loopMount('xfs', XFS_MIB)
  if (typeof mount === 'string') return lines.say(`not on XFS: ${mount}`)
  const before = process.env['TMPDIR']
  process.env['TMPDIR'] = mount.directory
  try {
    await onFileSystem(lines, 'xfs', options.pairs)
  } finally {
    if (before === undefined) delete process.env['TMPDIR']
    else process.env['TMPDIR'] = before
    await mount.unmount()
  }
}

async function onFileSystem(lines: Lines, name: string, rounds: number): Promise<void> {
  const system = await System.start([])
  const samples: Weighed<Sample>[] = []
  try {
    const group = await system.group(PAIRS)
    await system.inSync(group.id)
    const clients: NbdClient[] = []
    for (const pair of group.pairs) clients.push(await system.connect('az1', pair))
    for (const client of clients) await fill(client)
    for (let i = 0; i < rounds; i++) {
      samples.push(await weighed(system.pids, () => oneRound(system, group.id, clients)))
    }
    for (const client of clients) await client.disconnect()
  } finally {
    await system.close()
  }
  show(lines, name, samples)
}

async function fill(client: NbdClient): Promise<void> {
  const data = Buffer.alloc(4 * MIB)
  for (let at = 0; at < FILLED_MIB * MIB; at += data.length) {
    await client.write(at, randomFillSync(data))
  }
  await client.flush()
}

async function oneRound(
  system: System,
  group: string,
  clients: readonly NbdClient[],
): Promise<Sample> {
  const quiet = await underLoad(clients, () => pause(QUIET_MS))
  const { lab } = system
  const drill = await underLoad(clients, async () => {
    const { drill: made } = await lab.ok<{ drill: { id: string } }>(202, 'POST', '/api/v1/drills', {
      group,
      name: 'bench',
      delete_after: true,
    })
    const path = `/api/v1/drills/${made.id}`
    await lab.until(
      'the drill is over',
      () => lab.call('GET', path),
      ({ status }) => status === 404,
      300_000,
    )
    return (await lab.ok<{ report: Report }>(200, 'GET', `${path}/report`)).report
  })
  const { production_stall_ms, steps, moment, result, teardown } = drill.value
  // Without a server nothing is proved, and that is the best result of such a drill.
  if (result !== 'nothing_proved' || teardown.verdict !== 'clean') {
    throw new Error(`the drill ended as ${result}, its teardown as ${teardown.verdict}`)
  }
  return {
    quiet: quiet.half,
    drill: drill.half,
    stallMs: production_stall_ms,
    cloneMs: steps.find((step) => step.name === 'clone')?.ms ?? 0,
    kind: moment.kinds.join(' '),
  }
}

interface Report {
  readonly production_stall_ms: number
  readonly steps: readonly { readonly name: string; readonly ms: number }[]
  readonly moment: { readonly kinds: readonly string[] }
  readonly result: string
  readonly teardown: { readonly verdict: string }
}

/** Writes at the rate until `work` has ended, and waits for every answer. */
async function underLoad<T>(
  clients: readonly NbdClient[],
  work: () => Promise<T>,
): Promise<{ readonly value: T; readonly half: Half }> {
  const tookMs: number[] = []
  const answers: Promise<void>[] = []
  let going = true
  const writing = (async () => {
    const startMs = performance.now()
    for (let n = 0; going; n++) {
      const dueMs = startMs + (n * 1000) / PER_SECOND
      const earlyMs = dueMs - performance.now()
      if (earlyMs > 0) await pause(earlyMs)
      const client = clients[n % clients.length]
      const at = Math.floor((Math.random() * FILLED_MIB * MIB) / 4096) * 4096
      const answer = client?.write(at, WRITE).then(() => {
        tookMs.push(performance.now() - dueMs)
      })
      if (answer !== undefined) answers.push(answer)
    }
  })()
  try {
    return { value: await work(), half: await ended() }
  } finally {
    going = false
  }
  async function ended(): Promise<Half> {
    going = false
    await writing
    await Promise.all(answers)
    const sorted = tookMs.sort((a, b) => a - b)
    const at = (share: number) => sorted[Math.floor((sorted.length - 1) * share)] ?? 0
    return { p50: at(0.5), p99: at(0.99), most: at(1) }
  }
}

function show(lines: Lines, name: string, samples: readonly Weighed<Sample>[]): void {
  const values = samples.map(({ value }) => value)
  const disturbed = disturbedOf(samples)
  for (const figure of ['p50', 'p99', 'most'] as const) {
    const more = values.map(({ quiet, drill }) => drill[figure] - quiet[figure])
    const sorted = more.toSorted((a, b) => a - b)
    lines.show(
      {
        case: `${name}: ${figure} of writes, more under a drill`,
        figure: round(
          medianOf(more, (one) => one),
          2,
        ),
        unit: 'ms',
        bound: null,
        samples: samples.length,
        disturbed,
        also: {
          least_ms: round(sorted[0] ?? 0, 2),
          most_ms: round(sorted.at(-1) ?? 0, 2),
          quiet_ms: round(
            medianOf(values, ({ quiet }) => quiet[figure]),
            2,
          ),
          drill_ms: round(
            medianOf(values, ({ drill }) => drill[figure]),
            2,
          ),
        },
      },
      'most',
    )
  }
  lines.show(
    {
      case: `${name}: copies of ${PAIRS} disks with ${FILLED_MIB} MiB each`,
      figure: round(medianOf(values, ({ cloneMs }) => cloneMs)),
      unit: 'ms',
      bound: null,
      samples: samples.length,
      disturbed,
      also: {
        snapshot: values[0]?.kind ?? '',
        reported_stall_ms: round(medianOf(values, ({ stallMs }) => stallMs)),
      },
    },
    'most',
  )
}
