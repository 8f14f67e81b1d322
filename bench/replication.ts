/* Question: what does a synchronously replicated volume of ours do, against the best synchronous mirror that QEMU has?
 *
 *   ours   fio ── NBD, unix socket ── agent of site A ══ link, TCP loopback ══ agent of site B       (link plain, link mTLS)
 *   peer   fio ── NBD, unix socket ── qemu-storage-daemon, blockdev-mirror ══ NBD, TCP loopback ══ nbdkit file
 *
 * Both acknowledge a write when both copies are in the page cache. With a flush they differ: the mirror flushes only
 * its own side, ours both, so that line compares unequal promises.
 *
 * What makes the figures meaningless: other processes took part of the machine (every sample is weighed, those with too much are
 * repeated); the file system (both copies of both systems share one, and so one journal); absolute numbers at all: the client
 * and both sites share the cores of one machine. Read the ratios.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { LOADS, type Load, type LoadName, measure, type Sample, type Settings } from './lib/fio.ts'
import { dropCaches, machineFacts, median } from './lib/machine.ts'
import {
  firstLine,
  type NbdTarget,
  qemuMirror,
  sparseFile,
  start,
  unixUri,
} from './lib/programs.ts'
import { fdatasyncUs, roundTripUs } from './lib/reference.ts'

const SIZE_BYTES = 1024 ** 3
/** A sample during which others took more than this share of the machine is thrown away and repeated. */
const FOREIGN_MAX = 0.15
/** Attempts for one sample; then the least disturbed one is kept and reported as disturbed. */
const ATTEMPTS_MAX = 3

type Side = 'peer' | 'plaintext' | 'mtls'

/** What is to be reached against the peer with an unencrypted link. */
const GOALS: Partial<Record<LoadName, number>> = { rw1: 1.1, rw32: 2.0, sw8: 1.6, fs1: 0.5 }

interface Serving {
  readonly socket: string
  readonly export: string
  readonly writer: number
  readonly replica: number
}

async function holdfast(link: 'plaintext' | 'mtls'): Promise<NbdTarget> {
  const script = join(import.meta.dirname, 'serve-sites.ts')
  const args = [script, String(SIZE_BYTES), link === 'mtls' ? 'tls' : 'keyed']
  let serving: Serving | undefined
  const program = await start(process.execPath, args, async (child) => {
    serving = await firstLine<Serving>(child)
  })
  if (serving === undefined) throw new Error('the sites did not start')
  const { socket, writer, replica } = serving
  return {
    uri: unixUri(socket, serving.export),
    pids: [...program.pids, writer, replica],
    stop: () => program.stop(),
  }
}

export interface ReplicationOptions {
  readonly json: boolean
  readonly pairs: number
  readonly runtimeS: number
  readonly loads: readonly LoadName[]
}

export async function benchReplication(options: ReplicationOptions): Promise<void> {
  const say = (text: string) => {
    if (!options.json) console.log(text)
    else process.stderr.write(`${text}\n`)
  }
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-bench-'))
  const sides = new Map<Side, NbdTarget>()
  try {
    const facts = machineFacts(directory)
    say(
      `${facts.cores} cores shared by client and both sites (${facts.processor}), ${facts.file_system}, kernel ${facts.kernel}, Node ${facts.node}`,
    )
    if (!dropCaches()) say('not permitted to empty the page cache: samples depend on their order')
    sides.set(
      'peer',
      await qemuMirror({
        socket: join(directory, 'mirror.sock'),
        qmp: join(directory, 'qmp.sock'),
        file: sparseFile(join(directory, 'source.raw'), SIZE_BYTES),
        copy: sparseFile(join(directory, 'target.raw'), SIZE_BYTES),
      }),
    )
    sides.set('plaintext', await holdfast('plaintext'))
    sides.set('mtls', await holdfast('mtls'))
    const settings = { runtimeS: options.runtimeS, sizeBytes: SIZE_BYTES }
    say('writing every volume once, so that all blocks are allocated')
    for (const side of sides.values()) await fill(side, settings)

    const fdatasync = fdatasyncUs(join(directory, 'source.raw'))
    const roundTrip = await roundTripUs()
    say(
      `fdatasync of 4 KiB here: ${Math.round(fdatasync)} us · TCP round trip: ${Math.round(roundTrip)} us`,
    )
    for (const name of options.loads) {
      const load = LOADS[name]
      const measured = await measurePairs(load, sides, options.pairs, settings)
      for (const link of ['plaintext', 'mtls'] as const) {
        const line = {
          ...result(load, link, measured),
          ...(name === 'fs1' ? flushes(link, measured, fdatasync, roundTrip) : {}),
          ...(link === 'plaintext' && GOALS[name] !== undefined ? { goal: GOALS[name] } : {}),
        }
        if (options.json)
          console.log(JSON.stringify({ ...line, runtime_s: options.runtimeS, ...facts }))
        else show(line)
      }
    }
  } finally {
    for (const side of sides.values()) await side.stop()
    rmSync(directory, { recursive: true, force: true })
  }
}

async function fill(side: NbdTarget, settings: Settings): Promise<void> {
  const load: Load = { ...LOADS.sw8, args: [...LOADS.sw8.args, '--time_based=0'] }
  await measure(load, side.uri, side.pids, settings)
}

interface Measured {
  readonly samples: ReadonlyMap<Side, readonly Sample[]>
  readonly rejected: number
  readonly disturbed: number
}

/** Every round measures each side once, in another order each time. */
async function measurePairs(
  load: Load,
  sides: ReadonlyMap<Side, NbdTarget>,
  pairs: number,
  settings: Settings,
): Promise<Measured> {
  const samples = new Map<Side, Sample[]>([...sides.keys()].map((side) => [side, []]))
  let rejected = 0
  let disturbed = 0
  for (let round = 0; round < pairs; round++) {
    for (const [side, target] of mixed([...sides], round)) {
      let best: Sample | undefined
      for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
        const sample = await measure(load, target.uri, target.pids, settings)
        if (best === undefined || sample.foreign < best.foreign) best = sample
        if (sample.foreign <= FOREIGN_MAX) break
        rejected++
      }
      if (best === undefined) throw new Error('no sample')
      if (best.foreign > FOREIGN_MAX) disturbed++
      samples.get(side)?.push(best)
    }
  }
  return { samples, rejected, disturbed }
}

/** All orders of three sides come up within six rounds. */
function mixed<T>(items: readonly T[], round: number): T[] {
  const turn = round % items.length
  const turned = [...items.slice(turn), ...items.slice(0, turn)]
  return Math.floor(round / items.length) % 2 === 0 ? turned : turned.toReversed()
}

function result(
  load: Load,
  link: 'plaintext' | 'mtls',
  { samples, rejected, disturbed }: Measured,
) {
  const ours = samples.get(link) ?? []
  const peer = samples.get('peer') ?? []
  const value = (list: readonly Sample[]) => median(list.map((sample) => sample.value))
  const p50 = (list: readonly Sample[]) => Math.round(median(list.map((sample) => sample.p50Us)))
  const p99 = (list: readonly Sample[]) => Math.round(median(list.map((sample) => sample.p99Us)))
  // Each pair was measured minutes apart at most, so the median of ratios forgives drift of the machine.
  const ratios = ours.map((sample, i) => sample.value / (peer[i]?.value ?? Number.NaN))
  return {
    case: load.name,
    link,
    unit: load.unit,
    holdfast: Math.round(value(ours)),
    peer: Math.round(value(peer)),
    ratio: Number(median(ratios).toFixed(2)),
    ratio_min: Number(Math.min(...ratios).toFixed(2)),
    ratio_max: Number(Math.max(...ratios).toFixed(2)),
    holdfast_p50_us: p50(ours),
    peer_p50_us: p50(peer),
    holdfast_p99_us: p99(ours),
    peer_p99_us: p99(peer),
    pairs: ours.length,
    samples_rejected: rejected,
    samples_disturbed: disturbed,
  }
}

/** The flush alone, and what it could take at best: both sites at once, the remote one a round trip away, and 60 us for
 *  ourselves. That both sites share one journal here, and so wait for each other, is not in that bound. */
function flushes(
  link: 'plaintext' | 'mtls',
  { samples }: Measured,
  fdatasync: number,
  roundTrip: number,
) {
  const p50 = (side: Side) =>
    Math.round(median((samples.get(side) ?? []).map((sample) => sample.flushP50Us)))
  return {
    holdfast_flush_p50_us: p50(link),
    peer_flush_p50_us: p50('peer'),
    fdatasync_us: Math.round(fdatasync),
    round_trip_us: Math.round(roundTrip),
    flush_bound_us: Math.round(Math.max(fdatasync, roundTrip + fdatasync) + 60),
  }
}

type Line = ReturnType<typeof result> & {
  readonly goal?: number
  readonly holdfast_flush_p50_us?: number
  readonly peer_flush_p50_us?: number
  readonly flush_bound_us?: number
}

function show(line: Line): void {
  const goal =
    line.goal === undefined
      ? ''
      : `  goal ${line.goal} ${line.ratio >= line.goal ? 'reached' : 'NOT REACHED'}`
  const flush =
    line.flush_bound_us === undefined
      ? ''
      : `  flush alone ${line.holdfast_flush_p50_us}/${line.peer_flush_p50_us} us, bound ${line.flush_bound_us} us`
  const disturbed =
    line.samples_disturbed > 0 ? `  (${line.samples_disturbed} samples on a busy machine)` : ''
  console.log(
    `${line.case.padEnd(28)} ${line.link.padEnd(10)} ${String(line.holdfast).padStart(7)} against ${String(line.peer).padStart(7)} ${line.unit}` +
      `  ratio ${line.ratio.toFixed(2)} (${line.ratio_min}-${line.ratio_max})  p50 ${line.holdfast_p50_us}/${line.peer_p50_us} us${goal}${flush}${disturbed}`,
  )
}
