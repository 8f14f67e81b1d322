import { type Clock, sleep } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { CHECKPOINT_UNKNOWN, OBJECT_MISSING, VAULT_DAMAGED } from '#vault/faults.ts'
import type { DataKey } from '#vault/keys/keyring.ts'
import { blockNaming } from '#vault/keys/keyring.ts'
import type { Manifest } from '#vault/format/manifest.ts'
import { createHasher } from '#vault/format/record.ts'
import type { Checkpoint } from '#vault/restore/checkpoint.ts'
import type { Vault } from '#vault/vault.ts'
import type { ReplicaInfo, ReplicaRequest } from '#wire/site/backups.ts'
import type { OpenTransfer } from '#wire/replica/messages.ts'
import { REPLICA_UNREACHABLE, REPLICA_VAULT_FAILED } from './faults.ts'
import { Pace } from './pace.ts'
import type { RegionVault } from './region-vault.ts'
import { isOfVault, LineDown, ReplicaLine } from './replica-line.ts'
import { sendVolume } from './send-volume.ts'
import { stronger } from './stronger.ts'
import { vaultThreads } from './threads.ts'
import {
  durationMs,
  newWork,
  openWorks,
  type Running,
  type WorkRecord,
  type Works,
} from './works.ts'

/* The source's side of replicas: brings a checkpoint of this vault to the vault of another region. When the line is cut it is dialled again, and everything
 * is asked for anew: what has arrived is known there by its name, and not sent again. */

/** One at a time: it is the line that takes the time. */
const AT_ONCE_MAX = 1
const STREAMS = 2
const STREAMS_ACCELERATED = 6
const RETRY_MS_MIN = 500
const RETRY_MS_MAX = 15_000
/** Without anything arriving for so long the work fails, and says so. */
const UNREACHABLE_MS = 10 * 60_000
/** Sent between two notes of how much it was. */
const NOTE_BYTES = 4 * 1024 * 1024

export interface ReplicaRecord extends WorkRecord {
  /** With its ticket: the file is as private as the vault's key. */
  readonly request: ReplicaRequest
  readonly checkpoint: string | null
  readonly totalBytes: number
  readonly doneBytes: number
  readonly sentBytes: number
  readonly missingBytes: number
  /** Session of the other vault that was written to last, and what was missing before it. */
  readonly session: string | null
  readonly missingBefore: number
}

export interface ReplicasParts {
  readonly directory: string
  readonly vault: RegionVault
  readonly clock: Clock
  readonly log: Log
}

export interface Replicas {
  readonly works: Works<ReplicaRecord>
  start(request: ReplicaRequest): Promise<ReplicaRecord>
}

export const replicaInfo = (record: ReplicaRecord, clock: Clock): ReplicaInfo => ({
  replica: record.id,
  state: record.state,
  code: record.code,
  reason: record.reason,
  checkpoint: record.checkpoint,
  total_bytes: record.totalBytes,
  done_bytes: record.doneBytes,
  sent_bytes: record.sentBytes,
  missing_bytes: record.missingBytes,
  duration_ms: durationMs(record, clock),
})

export async function openReplicas(parts: ReplicasParts): Promise<Replicas> {
  const { vault, clock } = parts
  const works = await openWorks<ReplicaRecord>({
    directory: parts.directory,
    what: 'replica',
    clock,
    log: parts.log,
    atOnceMax: AT_ONCE_MAX,
    run: (running) => new Replica(parts, running).carryOut(),
  })
  return {
    works,
    async start(request) {
      const known = works.list().find(({ id }) => id === request.replica)
      if (known !== undefined && known.request.target.ticket !== request.target.ticket) {
        const change = { request: { ...known.request, target: request.target } }
        if (known.state === 'running') return await works.amend(known.id, change)
        if (known.state === 'failed') return await works.again(known.id, change)
      }
      return await works.begin(request.replica, async () => {
        await (await vault.open()).checkpoint(request.checkpoint)
        return {
          ...newWork(request.replica, clock),
          request,
          checkpoint: null,
          totalBytes: 0,
          doneBytes: 0,
          sentBytes: 0,
          missingBytes: 0,
          session: null,
          missingBefore: 0,
        }
      })
    },
  }
}

class Replica {
  readonly #parts: ReplicasParts
  readonly #running: Running<ReplicaRecord>
  readonly #pace: Pace
  /** On the base that was named, as far as it is there. */
  #building = true
  #heardMs: number
  #waitMs = RETRY_MS_MIN
  #unnoted = 0

  constructor(parts: ReplicasParts, running: Running<ReplicaRecord>) {
    this.#parts = parts
    this.#running = running
    this.#pace = new Pace(parts.clock, running.record.request.rate_bytes)
    this.#heardMs = parts.clock.bootMs()
  }

  async carryOut(): Promise<void> {
    const { request } = this.#running.record
    const vault = await this.#parts.vault.open()
    const checkpoint = await vault.checkpoint(request.checkpoint)
    const key = await keyOf(vault, checkpoint)
    const totalBytes = checkpoint.manifest.volumes.reduce((sum, one) => sum + one.sizeBytes, 0)
    this.#running.note({ totalBytes })
    for (;;) {
      try {
        const id = await this.#attempt(vault, checkpoint, key)
        await this.#running.persist({ checkpoint: id, doneBytes: totalBytes })
        return
      } catch (error) {
        if (error instanceof LineDown) await this.#waitAfter(error)
        else if (this.#building && isGone(error)) {
          // Nothing holds the base while it is compared with. What is gone beside it shows in the next attempt.
          this.#building = false
          this.#parts.log.warn(
            { replica: request.replica, err: error },
            'building on nothing instead',
          )
        } else throw error
      }
    }
  }

  async #waitAfter(error: LineDown): Promise<void> {
    const { clock, log } = this.#parts
    const { signal, record } = this.#running
    signal.throwIfAborted()
    if (clock.bootMs() - this.#heardMs > UNREACHABLE_MS) {
      const kind = isOfVault(error.code) ? REPLICA_VAULT_FAILED : REPLICA_UNREACHABLE
      throw new Fault(kind, `sending replica ${record.id}: ${error.message}`)
    }
    log.info({ replica: record.id, reason: error.message, waitMs: this.#waitMs }, 'dialling again')
    await sleep(clock, this.#waitMs, signal)
    this.#waitMs = Math.min(RETRY_MS_MAX, this.#waitMs * 2)
  }

  async #attempt(vault: Vault, checkpoint: Checkpoint, key: DataKey): Promise<string> {
    const { signal, record } = this.#running
    const { accelerate, target } = record.request
    const streams = accelerate ? STREAMS_ACCELERATED : STREAMS
    const stop = new AbortController()
    const either = AbortSignal.any([signal, stop.signal])
    const line = new ReplicaLine(target, streams, either)
    const { blockBytes } = checkpoint.manifest
    const again = accelerate ? stronger(blockBytes, key, vaultThreads()) : undefined
    try {
      const base = await this.#base(vault)
      const opened = await line.open(openMessage(vault, checkpoint.manifest, key, record, base))
      if (opened.state === 'done') return opened.checkpoint
      // Zeroes are told only over a base: without one here and with one there, old content would stay.
      if (opened.based && base === undefined) {
        throw new LineDown('the other side builds on a checkpoint that was not named')
      }
      await this.#joined(opened.session)
      let before = 0
      for (const [number, volume] of checkpoint.manifest.volumes.entries()) {
        if (!opened.volumes_done.includes(number)) {
          await sendVolume({
            checkpoint,
            volume: volume.id,
            number,
            ...(opened.based && base !== undefined ? { base: base.manifest } : {}),
            line,
            streams,
            ...(again === undefined ? {} : { again }),
            signal: either,
            stop: () => stop.abort(new LineDown('another stream failed')),
            onDone: (bytes) => this.#running.note({ doneBytes: before + bytes }),
            onSend: (bytes) =>
              this.#running.note({ sentBytes: this.#running.record.sentBytes + bytes }),
            onArrived: (bytes, durable) => this.#arrived(bytes, durable),
          })
          await line.endVolume(number)
        }
        before += volume.sizeBytes
      }
      const { checkpoint: id, arrived_bytes } = await line.finish()
      await this.#running.persist({
        missingBytes: this.#running.record.missingBefore + arrived_bytes,
      })
      return id
    } catch (error) {
      if (signal.aborted) await line.end().catch(() => undefined)
      throw error
    } finally {
      line.close()
      again?.close()
    }
  }

  /** What a session that is no more had not made durable is missing once more. */
  async #joined(session: string): Promise<void> {
    const { record } = this.#running
    if (record.session === session) return
    await this.#running.persist({ session, missingBefore: record.missingBytes })
  }

  async #arrived(bytes: number, durable: number): Promise<void> {
    const { signal, record } = this.#running
    this.#heardMs = this.#parts.clock.bootMs()
    this.#waitMs = RETRY_MS_MIN
    const missingBytes = Math.max(record.missingBytes, record.missingBefore + durable)
    this.#running.note({ missingBytes })
    this.#unnoted += bytes
    if (this.#unnoted >= NOTE_BYTES) {
      this.#unnoted = 0
      await this.#running.persist({})
    }
    await this.#pace.spent(bytes, signal)
  }

  async #base(vault: Vault): Promise<Base | undefined> {
    const told = this.#running.record.request.base ?? null
    if (told === null || !this.#building) return undefined
    try {
      const { manifest } = await vault.checkpoint(told.checkpoint)
      return { manifest, replica: told.replica_checkpoint }
    } catch (error) {
      if (isGone(error)) return undefined
      throw error
    }
  }
}

const isGone = (error: unknown): boolean =>
  [CHECKPOINT_UNKNOWN, OBJECT_MISSING, VAULT_DAMAGED].some((kind) => isFault(error, kind))

interface Base {
  readonly manifest: Manifest
  /** What it is called in the other vault. */
  readonly replica: string
}

/** The data key whose names the blocks have: a checkpoint may itself have come from another vault. */
async function keyOf(vault: Vault, checkpoint: Checkpoint): Promise<DataKey> {
  const keys = vault.dataKeys()
  const own = keys
    .filter(({ origin }) => origin === vault.header.id)
    .toSorted((a, b) => b.generation - a.generation || a.id.compare(b.id))
  const found = await firstBlock(checkpoint)
  const named =
    found === undefined
      ? undefined
      : [...own, ...keys].find((key) =>
          createHasher(blockNaming(key)).id(found.bytes).equals(found.id),
        )
  const key = named ?? own[0]
  if (key === undefined) throw new Error('an open vault has a data key of its own')
  return key
}

async function firstBlock(
  checkpoint: Checkpoint,
): Promise<{ readonly id: Buffer; readonly bytes: Buffer } | undefined> {
  for (const { id } of checkpoint.manifest.volumes) {
    for await (const item of checkpoint.blocks(id)) {
      if (item.kind === 'zero') continue
      return { id: item.entry.id, bytes: await checkpoint.readBlock(item.entry) }
    }
  }
  return undefined
}

function openMessage(
  vault: Vault,
  manifest: Manifest,
  key: DataKey,
  record: ReplicaRecord,
  base: Base | undefined,
): OpenTransfer {
  return {
    version: 1,
    replica: record.id,
    vault: vault.header.id,
    checkpoint: manifest.id,
    block_bytes: manifest.blockBytes,
    created_ms: manifest.createdMs,
    labels: { ...manifest.labels },
    volumes: manifest.volumes.map(({ id, sizeBytes }) => ({ id, size_bytes: sizeBytes })),
    data_key: {
      id: key.id.toString('hex'),
      secret: key.secret.toString('base64'),
      naming: key.naming.toString('base64'),
      generation: key.generation,
      origin: key.origin,
    },
    base:
      base === undefined
        ? null
        : { checkpoint: base.manifest.id, replica_checkpoint: base.replica },
  }
}
