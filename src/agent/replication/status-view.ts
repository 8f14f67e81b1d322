import type { SessionStatus } from '#wire/site/witness.ts'
import type { Copying } from './copy/copying.ts'
import type { SessionCore } from './core.ts'
import type { Members } from './members.ts'
import type { ReplicaEnd } from './replica/replica-end.ts'
import type { Verifying } from './verify/verifying.ts'
import type { Writer } from './writer/writer.ts'
import type { WriterEnd } from './writer/writer-end.ts'

/* A session as the control plane and its operator see it. Owns one fact that nobody else keeps: since when it has been seen held. */

export interface StatusViewParts {
  readonly core: SessionCore
  readonly members: Members
  readonly writer: () => Writer | null
  readonly writerEnd: WriterEnd
  readonly replicaEnd: ReplicaEnd
  readonly copying: Copying
  readonly verifying: Verifying
}

export class StatusView {
  readonly #parts: StatusViewParts
  #heldSinceMs: number | null = null

  constructor(parts: StatusViewParts) {
    this.#parts = parts
  }

  show(): SessionStatus {
    const { core, copying, verifying, writerEnd, replicaEnd } = this.#parts
    const { session } = core
    const { record, consistent, torn } = session.stored
    const now = core.now()
    const silence =
      session.role === 'writer'
        ? session.contact.silenceMs(now)
        : this.#parts.replicaEnd.silenceMs(now)
    const shown = session.shownPhase(now)
    const verify = verifying.summary()
    this.#heldSinceMs = shown === 'held' ? (this.#heldSinceMs ?? now) : null
    return {
      session: core.id,
      epoch: record.epoch,
      state: record.state,
      role: session.role === 'none' ? 'fenced' : session.role,
      phase: core.broken === null ? shown : 'failed',
      link: session.linked ? 'up' : 'down',
      peer_silence_ms: silence === null ? null : Math.round(silence),
      sequence: session.gate.sequence,
      acknowledged: session.gate.acknowledged,
      consistent: consistent && !torn,
      ...(torn ? { torn } : {}),
      held_ms: this.#heldSinceMs === null ? null : Math.round(now - this.#heldSinceMs),
      peer_busy: this.#parts.writerEnd.peerBusy || this.#parts.replicaEnd.peerBusy,
      progress: copying.progress ?? (record.state === 'resyncing' ? 0 : 100),
      copy_rate_bytes: copying.rateBytes,
      copy_kind: copying.kind,
      base_epoch: session.stored.baseEpoch,
      copy_sent_bytes: copying.sentBytes,
      unwitnessed: session.stored.unwitnessed,
      presents: session.stored.promoted,
      arbitration: { mode: record.mode, preferred: record.preferred },
      out_of_touch_ms: session.stored.outOfTouchMs,
      kept: session.stored.kept,
      unfit: session.role === 'replica' ? replicaEnd.unfit : writerEnd.peerUnfit,
      members: this.#members(),
      ...(verify === null ? {} : { verify }),
    }
  }

  #members(): SessionStatus['members'] {
    const { members, writerEnd, copying } = this.#parts
    const writer = this.#parts.writer()
    return [...members.values()].map(({ index, stored, volume }) => {
      const member = writer?.members.get(index)
      return {
        volume: members.volumeId(stored),
        pair: stored.pair,
        joined: writer === null ? stored.joined : writerEnd.peerJoined.has(index),
        copied_bytes:
          member === undefined ? volume.sizeBytes : copying.copiedBytes(member, volume.sizeBytes),
        size_bytes: volume.sizeBytes,
      }
    })
  }
}
