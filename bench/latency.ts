/* Question: what does distance cost a client, beyond the physics of the distance?
 *
 *   client, QD1 ── NBD, unix socket ── agent of site A ══ link through the forwarder ══ agent of site B
 *   ping-pong of 32 bytes, Node to Node, through the same forwarder process, beside every sample
 *
 * Bounds of the median: a write waits for one ping-pong, a flush for one ping-pong and the fdatasync of the other site; both may cost 200 us
 * of ours. A write followed by a flush is two requests of the client, one after the other, and has the sum. A durable write (FUA) is one request.
 * The client is libnbd, called one request at a time (lib/requester.ts), and every time is kept: fio tells a percentile to 1.5 %, which is as much as the
 * bounds are about, and sends no FUA.
 *
 * The fdatasync is measured where it stands in a flush: after a journey, during which disk and processors have rested. One right behind the
 * other they are cheaper by what has nothing to do with us: the kernel's clock for the times of files goes in steps of some milliseconds, so that most of
 * them find the inode unchanged and do not write it, while after a journey each does (`back_to_back_us` shows it).
 *
 * What would make it meaningless: the delays asked for (timers are late; that is why the ping-pong runs through the same forwarder and
 * the same naps); code that was never run before (Node begins with an interpreter: sites, forwarder and echo have served some thousand requests,
 * flushes among them, before the first sample, as those of an installation have); other processes (weighed, repeated, marked); a machine whose speed changes
 * (a part of the pings is measured before each sample); the forwarder, which takes part of a core from everybody, also from the
 * ping-pong; both sites' fdatasync going through one journal at the same time, while the bound has one alone. */
import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { openSync, closeSync, writeSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { certificates, Lab } from '../test/integration/replication-lab/lab.ts'
import { LOADS, measure } from './lib/fio.ts'
import { disturbedOf, Lines, medianOf, round, undisturbed, weighed } from './lib/lines.ts'
import { dropCaches, machineFacts, median } from './lib/machine.ts'
import { pingPong, type PingPong } from './lib/physics.ts'
import { firstLine, start, unixUri, type Program } from './lib/programs.ts'
import { fdatasyncAfterUs, fdatasyncUs } from './lib/reference.ts'
import type { Kind, Times, Wanted } from './lib/requester.ts'

const MIB = 1024 * 1024
const SIZE_BYTES = 256 * MIB
/** Each way, milliseconds. */
const DELAYS_MS = [0.5, 2]
const OWN_US = 200
/** Before each of the three samples of a round. */
const PINGS = 100
const FDATASYNCS = 100
/** Of 4 KiB writes, many at a time, before the first sample; and of the same with a flush each. */
const WARM_UP_S = 1

type Sample = Times & { readonly foreign: number }

interface Round {
  readonly pingUs: number
  readonly fdatasyncUs: number
  readonly backToBackUs: number
  readonly write: Sample
  readonly flush: Sample
  readonly durable: Sample
}

export interface LatencyOptions {
  readonly json: boolean
  readonly pairs: number
  readonly runtimeS: number
}

export async function benchLatency(options: LatencyOptions): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-bench-'))
  try {
    const lines = new Lines(options.json, machineFacts(directory))
    const path = join(directory, 'fdatasync')
    const fd = openSync(path, 'w')
    for (let at = 0; at < 16 * MIB; at += MIB) writeSync(fd, Buffer.alloc(MIB, 1), 0, MIB, at)
    closeSync(fd)
    const security = await certificates()
    for (const delayMs of DELAYS_MS) {
      for (const link of ['plaintext', 'mtls'] as const) {
        const rounds = await measured(
          delayMs,
          link === 'mtls' ? security : undefined,
          path,
          options,
        )
        show(lines, `${delayMs} ms each way, ${link}`, rounds)
      }
    }
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

/** Two sites in sync, their link and the echo both behind one forwarder. */
async function measured(
  delayMs: number,
  security: Lab['security'],
  path: string,
  { pairs, runtimeS }: LatencyOptions,
): Promise<Round[]> {
  const lab = await Lab.make()
  let echo: ChildProcess | undefined
  let requester: ChildProcess | undefined
  let forwarder: Program | undefined
  let ping: PingPong | undefined
  try {
    lab.security = security
    // The settings of an installation, not the hasty ones of tests.
    lab.settings = { peerSilenceMs: 4_000, heartbeatMs: 500, intentClearMs: 10_000 }
    await lab.start([{ index: 1, sizeBytes: SIZE_BYTES, blank: true }])
    echo = child('echo.ts')
    const client = child('requester.ts')
    requester = client
    const gone = new AbortController()
    client.once('exit', () => gone.abort())
    const [echoPort] = (await once(echo, 'message')) as [number]
    let ports: readonly number[] = []
    const script = join(import.meta.dirname, 'lib', 'forwarder.ts')
    forwarder = await start(
      process.execPath,
      [script, String(delayMs), String(lab.a.port), String(echoPort)],
      async (child) => {
        ports = await firstLine<number[]>(child)
      },
    )
    const [linkPort = 0, pingPort = 0] = ports
    lab.linkPort['az1'] = linkPort
    await lab.protect()
    const uri = unixUri(lab.a.socket, 'pair-1')
    const pids = [lab.a.pid, lab.b.pid, ...forwarder.pids, echo.pid ?? 0, client.pid ?? 0]
    const settings = { runtimeS, sizeBytes: SIZE_BYTES }
    const fill = { ...LOADS.sw8, args: [...LOADS.sw8.args, '--time_based=0'] }
    await measure(fill, uri, pids, settings)
    const link = await pingPong(pingPort)
    ping = link
    const flushing = { ...LOADS.rw32, args: [...LOADS.rw32.args, '--fsync=1'] }
    for (const load of [LOADS.rw32, flushing]) {
      await measure(load, uri, pids, { ...settings, runtimeS: WARM_UP_S })
    }
    const sample = (kind: Kind) => () =>
      undisturbed(() =>
        requested(client, gone.signal, pids, {
          uri,
          kind,
          seconds: runtimeS,
          sizeBytes: SIZE_BYTES,
        }),
      )
    const rounds: Round[] = []
    for (let i = 0; i < pairs; i++) {
      const pings: number[] = []
      const beside = async (take: () => Promise<Sample>): Promise<Sample> => {
        pings.push(...(await link.times(PINGS)))
        return take()
      }
      const samples = {
        write: await beside(sample('write')),
        flush: await beside(sample('flush')),
        durable: await beside(sample('durable')),
      }
      rounds.push({
        ...samples,
        pingUs: median(pings),
        fdatasyncUs: await fdatasyncAfterUs(path, FDATASYNCS, () => link.once()),
        backToBackUs: fdatasyncUs(path),
      })
    }
    return rounds
  } finally {
    ping?.end()
    await forwarder?.stop()
    echo?.kill()
    requester?.kill()
    await lab.end()
  }
}

const child = (program: string): ChildProcess =>
  fork(join(import.meta.dirname, 'lib', program), {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  })

async function requested(
  client: ChildProcess,
  gone: AbortSignal,
  pids: readonly number[],
  wanted: Wanted,
): Promise<Sample> {
  dropCaches()
  const { value, foreign } = await weighed(pids, async () => {
    client.send(wanted)
    const [times] = (await once(client, 'message', { signal: gone })) as [Times]
    return times
  })
  return { ...value, foreign }
}

function show(lines: Lines, where: string, rounds: readonly Round[]): void {
  const fdatasync = medianOf(rounds, (one) => one.fdatasyncUs)
  const ping = medianOf(rounds, ({ pingUs }) => pingUs)
  const physics = {
    ping_pong_us: round(ping),
    fdatasync_us: round(fdatasync),
    back_to_back_us: round(medianOf(rounds, (one) => one.backToBackUs)),
  }
  const line = (
    name: string,
    figure: number,
    bound: number,
    samples: readonly { readonly foreign: number }[],
    also: Readonly<Record<string, number>>,
  ) =>
    lines.show(
      {
        case: `${name}, ${where}`,
        figure: round(figure),
        unit: 'us p50',
        bound: round(bound),
        samples: samples.length,
        disturbed: disturbedOf(samples),
        also: { ...also, ...physics },
      },
      'most',
    )
  const writes = rounds.map(({ write }) => write)
  const flushes = rounds.map(({ flush }) => flush)
  const durable = rounds.map((one) => one.durable)
  const written = (sample: Sample) => sample.writes
  const flushed = (sample: Sample) => sample.flushes
  const both = (sample: Sample) =>
    sample.writes.map((us, at) => us + (sample.flushes[at] ?? Number.NaN))
  const p50 = (of: readonly Sample[], times: (sample: Sample) => readonly number[]) =>
    medianOf(of, (sample) => median(times(sample)))
  const p99 = (of: readonly Sample[], times: (sample: Sample) => readonly number[]) => ({
    p99_us: round(medianOf(of, (sample) => highest(times(sample), 0.01))),
  })
  const flushBound = ping + fdatasync + OWN_US
  const bothBound = ping + OWN_US + flushBound
  line('4k write', p50(writes, written), ping + OWN_US, writes, p99(writes, written))
  line('flush after a 4k write', p50(flushes, flushed), flushBound, flushes, {})
  line('4k write + flush', p50(flushes, both), bothBound, flushes, p99(flushes, both))
  line('4k durable write', p50(durable, written), flushBound, durable, p99(durable, written))
}

/** The least of that share of the longest times. */
const highest = (times: readonly number[], share: number): number =>
  times.toSorted((a, b) => b - a)[Math.floor(times.length * share)] ?? Number.NaN
