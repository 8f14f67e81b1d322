import type { SecureContextOptions } from 'node:tls'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import type { CommandAnswer, CommandName, CommandRequest } from '#wire/site/commands.ts'
import type { SessionStatus, WitnessAnswer, WitnessAsk } from '#wire/site/witness.ts'
import type { ExportTable } from '#agent/nbd/exports.ts'
import type { Divergences } from '#agent/divergence/divergences.ts'
import type { Snapshots } from '#agent/snapshots/snapshots.ts'
import type { VolumeStore } from '#agent/volumes/volume-store.ts'
import type { EndedPart } from './ended-sessions.ts'
import type { PeerBeats } from './session/link-silence.ts'
import type { Role } from './session/phases.ts'

/* Public face of replication towards the agent. */

export type SessionCommand = Extract<CommandName, `session.${string}`>

/** Marks by session, which live as long as the boot of the host, and on no disk of the sessions. */
export interface SessionMarks {
  all(): ReadonlyMap<string, { readonly createdMs: number | null }>
  /** Survives the death of the process when it returns. Throws when no place takes it. */
  store(session: string, mark: { readonly reason: string; readonly createdMs: number }): void
  remove(session: string): void
}

/** What the sessions of one agent need from it. */
export interface SessionHostDeps {
  readonly site: string
  /** Name of this agent; over TLS its certificate's name is `agent:SITE:ID`. */
  readonly agentId: string
  /** Session state lives in `dataDir`/sessions/ID. */
  readonly dataDir: string
  readonly bootId: string
  /** Random per process start. */
  readonly runId: string
  readonly clock: Clock
  readonly log: Log
  readonly volumes: VolumeStore
  readonly exports: ExportTable
  /** Snapshots of the volumes; null: this agent takes none. */
  readonly snapshots: Snapshots | null
  /** Where a kept copy goes that holds what only this site had; null: this agent keeps none. */
  readonly divergences: Divergences | null
  /** Left out: a session whose files lost something within a boot does not know it after a restart. */
  readonly marks?: SessionMarks
  /** Never rejects for reasons of the outside world: null when the witness cannot be reached, timed out, or does not know
   *  the session. Must end within witnessTimeoutMs. */
  askWitness(session: string, ask: WitnessAsk): Promise<WitnessAnswer | null>
  readonly link: {
    readonly listen: { readonly host: string; readonly port: number }
    /** Mutual TLS, or a plaintext link whose ends prove knowledge of `secret`. */
    readonly security:
      | { readonly kind: 'tls'; readonly tls: LinkTls }
      | { readonly kind: 'keyed'; readonly secret: Uint8Array }
  }
  readonly settings: SessionHostSettings
  /** Left out: a link that is silent for peerSilenceMs is lost, whatever its peer is doing. */
  readonly beats?: PeerBeats
}

/** PEM texts. */
export type LinkTls = Pick<SecureContextOptions, 'ca' | 'cert' | 'key'>

/** The options of the same names in src/agent/config.ts. */
export interface SessionHostSettings {
  readonly peerSilenceMs: number
  readonly heartbeatMs: number
  readonly renewMs: number
  /** Bytes per second for copies; 0: no limit. */
  readonly syncRateBytes: number
  readonly holdBytes: number
  /** From the loss of the link to the question whether this side may go on alone, ms; left out: it never asks. */
  readonly soloDelayMs?: number
  /** Longest silence of a link whose peer is alive and busy, ms; default 30,000. */
  readonly busyMaxMs?: number
  /** Frames kept for a replica that is away, bytes; more, and a resync of blocks is needed. */
  readonly frameLogBytes?: number
  /** Interval in which intent bits are cleared, ms. */
  readonly intentClearMs?: number
}

export interface SessionHost {
  /** Listens for links, loads every session's state and goes on where it was. */
  start(): Promise<void>
  /** Rejects with a Fault; `STALE_EPOCH` and the like are final, retry 'later' means that a repeat may succeed. */
  command<N extends SessionCommand>(name: N, request: CommandRequest<N>): Promise<CommandAnswer<N>>
  /** Replaces the copy of a volume at the replica by an empty one; see rebuild.ts. Rejects as `command`. */
  rebuild(request: CommandRequest<'volume.rebuild'>): Promise<SessionStatus>
  statuses(): SessionStatus[]
  /** What this site is in a session, and since which epoch; undefined: the session is not loaded. Costs nothing. */
  roleAt(session: string): { readonly role: Role; readonly epoch: number } | undefined
  /** Sessions that have ended at this site, with the records that ended them, for the next report: a part of them, when there are many.
   *  Known again after a restart. */
  ended(): EndedPart
  /** True while a session uses the volume: it must not be served, extended or deleted by others. */
  usesVolume(volume: string): boolean
  /** `host:port` that peers dial, once started. */
  readonly linkAddress: { readonly host: string; readonly port: number }
  /** Clean stop: what is in flight is drained, made durable, and marked so. */
  close(): Promise<void>
}
