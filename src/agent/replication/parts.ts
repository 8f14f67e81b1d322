import { SessionCommands } from './commands.ts'
import { Copying } from './copy/copying.ts'
import { SessionCore, type SessionEdge } from './core.ts'
import { Greeting } from './session/hello.ts'
import { IntentClearing } from './writer/intent-clearing.ts'
import { KeptCopy } from './session/kept-copy.ts'
import { LinkSilence } from './session/link-silence.ts'
import { Members } from './members.ts'
import { ReplicaEnd } from './replica/replica-end.ts'
import { ServedNames } from './served-names.ts'
import type { SessionFiles } from './session/session-files.ts'
import { Session, unopened } from './session/session.ts'
import { StatusView } from './status-view.ts'
import type { SessionHostDeps } from './types.ts'
import { Verifying } from './verify/verifying.ts'
import { WriterEnd } from './writer/writer-end.ts'
import type { Writer } from './writer/writer.ts'

/* The parts of a session at one site, and who knows whom. The drawing is in runtime.ts, which owns them. */

/** Unless the agent's settings say otherwise. */
const BUSY_MAX_MS = 30_000

export interface AssemblyOptions {
  readonly id: string
  readonly deps: SessionHostDeps
  readonly files: SessionFiles
  /** The boot that the files count for. */
  readonly bootId: string
  readonly edge: SessionEdge
  /** The write path while this side is the writer. */
  readonly writer: () => Writer | null
}

export interface SessionParts {
  readonly session: Session
  readonly core: SessionCore
  readonly members: Members
  readonly names: ServedNames
  readonly greeting: Greeting
  readonly writerEnd: WriterEnd
  readonly replicaEnd: ReplicaEnd
  readonly copying: Copying
  readonly clearing: IntentClearing
  readonly commands: SessionCommands
  readonly verifying: Verifying
  /** null: nothing here can be kept. */
  readonly keptCopy: KeptCopy | null
  readonly view: StatusView
}

/** Makes them; none does anything yet. */
export function assemble(options: AssemblyOptions): SessionParts {
  const { id, deps, files, bootId, edge, writer } = options
  const { site, clock, volumes, exports, settings, runId } = deps
  const { peerSilenceMs, renewMs, syncRateBytes } = settings
  const { soloDelayMs } = settings
  const { snapshots, divergences } = deps
  const session = new Session(
    {
      session: id,
      site,
      silenceMs: peerSilenceMs,
      renewMs,
      ...(soloDelayMs === undefined ? {} : { soloDelayMs }),
      keepsCopies: snapshots !== null,
    },
    files.epoch.found ?? unopened(id),
    files.run.known,
    clock.bootMs(),
  )
  const core = new SessionCore({
    session,
    clock,
    log: deps.log.child({ session: id }),
    edge,
  })
  const { directory, run, members: found } = files
  const members = new Members({ session: id, site, volumes, directory, bootId, found })
  const names = new ServedNames({ members, exports, volumes })
  const { beats } = deps
  const greeting = new Greeting({ core, members, bootId, runId, beatsPort: beats?.port })
  const busyMaxMs = settings.busyMaxMs ?? BUSY_MAX_MS
  const silenceOf = (run: string, dial: { host: string; port: number } | null = null) => {
    const watch = beats?.watch(run, dial) ?? null
    return new LinkSilence({ watch, peerSilenceMs, busyMaxMs, now: clock.bootMs() })
  }
  const writerEnd = new WriterEnd({
    core,
    silenceOf,
    writer,
    onAcknowledged: () => copying.acknowledged(),
  })
  const { security } = deps.link
  const keptCopy =
    snapshots === null ? null : new KeptCopy({ core, members, snapshots, divergences, directory })
  const freeBytes = () => files.freeBytes()
  const replicaEnd = new ReplicaEnd({
    core,
    members,
    greeting,
    run,
    security,
    silenceOf,
    freeBytes,
    keptSettled: () => keptCopy?.settled ?? Promise.resolve(),
  })
  const copying = new Copying({ core, members, link: writerEnd, writer, syncRateBytes })
  const everyMs = settings.intentClearMs
  const clearing = new IntentClearing({ core, members, link: writerEnd, writer, everyMs })
  const commands = new SessionCommands({ core, members, names, copying, writer })
  const verifying = new Verifying({ core, members, link: writerEnd, writer, directory })
  const view = new StatusView({
    core,
    members,
    writer,
    writerEnd,
    replicaEnd,
    copying,
    verifying,
  })
  return {
    session,
    core,
    members,
    names,
    greeting,
    writerEnd,
    replicaEnd,
    copying,
    clearing,
    commands,
    verifying,
    keptCopy,
    view,
  }
}
