/* Question: how fast does a replica become a copy again?
 *
 *   first      an empty replica gets everything: sequential, new blocks
 *   delta      the replica was away while one contiguous stretch was written: sequential, over allocated blocks
 *   scattered  the replica was away while single 4 KiB blocks were written: whole 64 KiB blocks of what they lie in
 *
 * Figure: bytes that the copy sent, by the time from its beginning to the moment when the replica has acknowledged all of it and an fdatasync of its file,
 * asked for by this process, has returned. So planning, and what preserving the old blocks takes, are in it. The rise is not: after a lost link it
 * waits on purpose (a link that was lost within a minute has to hold for 2 s first); when the sites were in sync again is printed beside it.
 * Bound of the first two: 90 % of the slower of disk (sequential write and fdatasync of as many bytes in the replica's file system) and link
 * (one TCP or TLS connection between two Node processes that do nothing else), both measured right before. Scattered: 100 MiB/s.
 *
 * What disk means in a delta: a consistent copy of the replica is kept while it is overwritten, and that is a promise, not a choice of this program. So the
 * rate is that of overwriting the same bytes with the same duty on the same file system, by a loop that does nothing else: over a file cloned right
 * before (XFS: the file system finds new space for each block), or with each 8 MiB read, written elsewhere and made durable before they are overwritten
 * (ext4: three times the bytes). The rate without that duty is shown beside it, as `plain_disk_mib_s`, with what the figure is of 90 % of it.
 *
 * The replica lies on ext4 (or whatever the temporary directory is), where each block is preserved before it is overwritten for the first time, and
 * on XFS in a loop device, where the kept copy is a reflink. The loop device's file lies on the first one, and is written past its page cache: otherwise what the
 * replica writes back while the copy comes lies in memory once more, and nothing of it is on the disk when the flush at the end asks for it.
 *
 * Disk and link are measured one at a time, each with both cores for itself, and a resync has both at one time on the same cores. What that costs anybody is shown
 * beside the figure: `together_mib_s` is what two programs reach that do nothing but send over such a link and write to such a disk what comes.
 *
 * What would make it meaningless: a source that is not in the page cache (it is: the data was just written) or a real network; other processes
 * (weighed per copy, marked); both sites and the link's two ends share two cores, while disk and link are measured one at a time. */
import { execFile } from 'node:child_process'
import { randomFillSync } from 'node:crypto'
import { mkdir, mkdtemp, open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { NbdClient } from '#client/nbd/client.ts'
import { certificates, Lab } from '../test/integration/replication-lab/lab.ts'
import { until } from '../test/support/until.ts'
import { loopMount } from '../test/support/loop-mount.ts'
import { disturbedOf, Lines, medianOf, round, weighed, type Weighed } from './lib/lines.ts'
import { machineFacts } from './lib/machine.ts'
import {
  diskBytesPerSecond,
  type DiskRates,
  streamBytesPerSecond,
  togetherBytesPerSecond,
  type TogetherRates,
} from './lib/physics.ts'

const run = promisify(execFile)
const MIB = 1024 * 1024
const BLOCK = 65_536
const WRITE_BYTES = 4 * MIB
const SHARE = 0.9
const SCATTERED_BYTES = 100 * MIB
const WAIT_MS = 120_000

export interface ResyncOptions {
  readonly json: boolean
  readonly pairs: number
  readonly sizeMib: number
}

interface Copied {
  readonly kind: string
  readonly sentBytes: number
  /** From the first sight of the copy until all of it is durable at the replica; until it is acknowledged; until in sync. */
  readonly seconds: number
  readonly acknowledgedSeconds: number
  readonly inSyncSeconds: number
}

interface Place {
  readonly name: string
  readonly directory: string
}

export async function benchResync(options: ResyncOptions): Promise<void> {
  const home = await mkdtemp(join(tmpdir(), 'holdfast-bench-'))
  const mount = await loopMount('xfs', options.sizeMib * 4 + 1024, 'disk')
  try {
    const lines = new Lines(options.json, machineFacts(home))
    const places: Place[] = [
      { name: `replica on ${machineFacts(home).file_system}`, directory: home },
    ]
    if (typeof mount === 'string') lines.say(`no replica with reflink: ${mount}`)
    else places.push({ name: 'replica on xfs', directory: mount.directory })
    const security = await certificates()
    for (const place of places) {
      for (const link of ['mtls', 'plaintext'] as const) {
        const rounds: Round[] = []
        for (let i = 0; i < options.pairs; i++) {
          rounds.push(await oneRound(place, link === 'mtls' ? security : undefined, options))
        }
        show(lines, `${place.name}, ${link}`, rounds)
      }
    }
  } finally {
    if (typeof mount !== 'string') await mount.unmount()
    await rm(home, { recursive: true, force: true })
  }
}

interface Round {
  readonly disk: DiskRates
  readonly link: number
  readonly together: TogetherRates
  readonly first: Weighed<Copied>
  readonly delta: Weighed<Copied>
  readonly scattered: Weighed<Copied>
}

async function oneRound(
  place: Place,
  security: Lab['security'],
  { sizeMib }: ResyncOptions,
): Promise<Round> {
  const sizeBytes = sizeMib * MIB
  const credentials = security?.('az1')
  const tls = credentials?.kind === 'tls' ? credentials : undefined
  const link = await streamBytesPerSecond(sizeBytes, tls)
  const disk = await diskBytesPerSecond(place.directory, sizeBytes)
  const together = await togetherBytesPerSecond(place.directory, sizeBytes, tls)
  const lab = await Lab.make()
  const directory = join(place.directory, 'replica')
  await mkdir(directory)
  try {
    lab.security = security
    // The least frame log, so that a loss of the link ends in a resync; the rest as in an installation.
    lab.settings = {
      peerSilenceMs: 4_000,
      heartbeatMs: 500,
      intentClearMs: 10_000,
      soloDelayMs: 50,
      frameLogBytes: MIB,
    }
    lab.members = [{ index: 1, sizeBytes, blank: true }]
    await Promise.all([lab.a.start(), lab.b.start({ directory })])
    await lab.a.create('a-1', sizeBytes, false)
    await lab.b.create('b-1', sizeBytes, true)
    const plain = await lab.a.connect('a-1')
    await fill(plain, 0, sizeBytes)
    await plain.disconnect()
    await settled()

    const data = join(directory, 'volumes', 'b-1', 'data')
    const first = await copied(lab, data, () => lab.protect())
    const client = await lab.a.connect('pair-1')
    const away = async (change: () => Promise<void>): Promise<Weighed<Copied>> => {
      await lab.b.stop()
      await until('alone', async () => (await lab.a.status()).phase === 'alone', WAIT_MS)
      await change()
      await settled()
      return await copied(lab, data, () => lab.b.start({ directory }))
    }
    const delta = await away(() => fill(client, 0, sizeBytes / 2))
    const scattered = await away(() => scatter(client, sizeBytes))
    await client.disconnect()
    return { disk, link, together, first, delta, scattered }
  } finally {
    await lab.end()
    await rm(directory, { recursive: true, force: true })
  }
}

/** What was written so far is on the disk, and does not have to be written back during what is measured next. */
const settled = async (): Promise<void> => {
  await run('sync')
}

async function fill(client: NbdClient, from: number, end: number): Promise<void> {
  const data = randomFillSync(Buffer.alloc(WRITE_BYTES))
  for (let at = from; at < end; at += WRITE_BYTES) {
    // Each block another one than before, and no block like its neighbour.
    for (let block = 0; block < WRITE_BYTES; block += BLOCK) {
      data.writeDoubleLE(Math.random(), block)
    }
    await client.write(at, data.subarray(0, Math.min(WRITE_BYTES, end - at)))
  }
}

/** One 4 KiB block in each fourth 64 KiB block on average. */
async function scatter(client: NbdClient, sizeBytes: number): Promise<void> {
  const count = sizeBytes / BLOCK / 4
  for (let n = 0; n < count; n++) {
    const at = Math.floor(Math.random() * (sizeBytes / 4096)) * 4096
    await client.write(at, randomFillSync(Buffer.alloc(4096)))
  }
}

/** Watches one copy from its beginning until both sides are in sync. `data`: the replica's file. */
async function copied(
  lab: Lab,
  data: string,
  begin: () => Promise<unknown>,
): Promise<Weighed<Copied>> {
  return await weighed([lab.a.pid, lab.b.pid], async () => {
    const begun = begin()
    begun.catch(() => undefined) // awaited below, unless the wait for the copy fails before
    let kind = 'none'
    let beganMs = 0
    let sentBytes = 0
    await until(
      'copied',
      async () => {
        const [status] = await lab.a.sessions()
        if (status === undefined) return false
        const { copy_kind: seen, members } = status
        if (seen !== 'none' && kind === 'none') {
          kind = seen
          beganMs = performance.now()
        }
        if (kind === 'none') return false
        sentBytes = status.copy_sent_bytes
        // Where nothing is left to be made durable the rise may be over before anybody looks again.
        const whole = members.every((one) => one.copied_bytes === one.size_bytes)
        return seen === 'none' || (sentBytes > 0 && whole)
      },
      WAIT_MS,
    )
    const acknowledgedMs = performance.now()
    const file = await open(data, 'r+')
    await file.datasync()
    await file.close()
    const durableMs = performance.now()
    await begun
    await until('in sync', async () => (await lab.a.status()).phase === 'following', WAIT_MS)
    return {
      kind,
      sentBytes,
      seconds: (durableMs - beganMs) / 1000,
      acknowledgedSeconds: (acknowledgedMs - beganMs) / 1000,
      inSyncSeconds: (performance.now() - beganMs) / 1000,
    }
  })
}

function show(lines: Lines, where: string, rounds: readonly Round[]): void {
  const rate = ({ value }: Weighed<Copied>) => value.sentBytes / value.seconds
  const acknowledged = ({ value }: Weighed<Copied>) => value.sentBytes / value.acknowledgedSeconds
  const mib = (bytes: number) => round(bytes / MIB)
  const link = medianOf(rounds, (one) => one.link)
  const least = (one: Round, disk: number) => SHARE * Math.min(disk, one.link)
  const line = (
    name: string,
    pick: (one: Round) => Weighed<Copied>,
    boundOf: (one: Round) => number,
    diskOf: (one: Round) => number,
    togetherOf: ((one: Round) => number) | null,
    plainDiskOf: (one: Round) => number = diskOf,
  ) => {
    const samples = rounds.map(pick)
    lines.show(
      {
        case: `${name}, ${where}`,
        figure: mib(medianOf(samples, rate)),
        unit: 'MiB/s',
        bound: mib(medianOf(rounds, boundOf)),
        samples: samples.length,
        disturbed: disturbedOf(samples),
        also: {
          kind: samples[0]?.value.kind ?? '',
          sent_mib: mib(medianOf(samples, ({ value }) => value.sentBytes)),
          acknowledged_mib_s: mib(medianOf(samples, acknowledged)),
          in_sync_after_s: round(
            medianOf(samples, ({ value }) => value.inSyncSeconds),
            2,
          ),
          disk_mib_s: mib(medianOf(rounds, diskOf)),
          link_mib_s: mib(link),
          ...(togetherOf === null
            ? {}
            : {
                together_mib_s: mib(medianOf(rounds, togetherOf)),
                of_together: round(medianOf(samples, rate) / medianOf(rounds, togetherOf), 2),
              }),
          ...(plainDiskOf === diskOf
            ? {}
            : {
                plain_disk_mib_s: mib(medianOf(rounds, plainDiskOf)),
                of_plain: round(
                  medianOf(samples, rate) / medianOf(rounds, (one) => least(one, plainDiskOf(one))),
                  2,
                ),
              }),
        },
      },
      'least',
    )
  }
  const fresh = ({ disk }: Round) => disk.fresh
  const over = ({ disk }: Round) => disk.over
  const keeping = ({ disk }: Round) => disk.keeping
  line(
    'first copy',
    ({ first }) => first,
    (one) => least(one, one.disk.fresh),
    fresh,
    ({ together }) => together.fresh,
  )
  line(
    'delta, contiguous',
    ({ delta }) => delta,
    (one) => least(one, one.disk.keeping),
    keeping,
    ({ together }) => together.keeping,
    over,
  )
  line(
    'delta, scattered 4 KiB',
    ({ scattered }) => scattered,
    () => SCATTERED_BYTES,
    keeping,
    null,
  )
}
