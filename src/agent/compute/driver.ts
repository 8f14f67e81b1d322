import type { Duplex } from 'node:stream'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import type { Power, ServerDefinition, ServerDisk, ServerNic } from '#wire/site/servers.ts'

/* What turns a definition into a running machine.
 *
 * The store of definitions (servers.ts) decides nothing but order: it persists first, then calls a driver, one call at a time per server
 * (`state` and `console` may come beside another call, and `detach` beside `detach`). Every call is idempotent, ends in what `state` shows, and may follow a crash at any
 * point of the same call before. A driver keeps nothing of its own that is not found again by `adopt`.
 *
 *     adopt ──► define ──► start ──► attach / detach ──► powerDown | stop ──► remove
 *       ▲  once per server and start of the agent, before all else
 *
 * Guests outlive the agent. A driver never stops a guest because the agent goes (`close`), and never starts one that it was not told to.
 *
 * Disks: a guest reaches volume V as NBD export `V` of the agent's own unix socket. That export may be refused for a while (the agent
 * starts, or the replication is frozen): the guest's requests wait. Whether a guest may run at this site at all is not the driver's business.
 */

/** How a guest came to be off. */
export type GuestEnd =
  /** It powered itself off, or followed a request to. */
  | 'itself'
  /** The driver stopped it, or it was never started. */
  | 'stopped'
  /** Its process, or the hypervisor, ended without being asked. */
  | 'died'

export interface GuestState {
  readonly power: Power
  /** Of a guest that is off; 'stopped' otherwise. */
  readonly end: GuestEnd
  /** Why it is paused, unknown or died, as one sentence without a full stop; null: nothing to say. */
  readonly reason: string | null
  /** Volumes that the guest has now, also those it is to give back. Empty when it is off. */
  readonly disks: readonly string[]
  /** NICs that the guest has now. Empty when it is off. */
  readonly nics: readonly { readonly port: string; readonly mac: string }[]
  /** Volumes that were asked back and that the guest has not released. Each is in `disks`, too. */
  readonly releasing: readonly string[]
}

/** A guest that does not run and has nothing. */
export const GUEST_OFF: GuestState = {
  power: 'off',
  end: 'stopped',
  reason: null,
  disks: [],
  nics: [],
  releasing: [],
}

/** What can be plugged into a guest while it runs. */
export type GuestDevice =
  | { readonly kind: 'disk'; readonly disk: ServerDisk }
  | { readonly kind: 'nic'; readonly nic: ServerNic }

/** What can be taken from it. */
export type GuestDeviceName =
  | { readonly kind: 'disk'; readonly volume: string }
  | { readonly kind: 'nic'; readonly port: string }

export interface ComputeDriver {
  /** qemu, libvirt, hooks: as reports say it. */
  readonly name: string
  /** How often `state` is asked for besides what `watch` tells, ms. */
  readonly pollMs: number
  /** tcg, kvm; `none` while it is not known, or of no meaning. From memory. */
  accelerator(): string
  /** Called when something about a guest may have changed by itself. A driver that never calls is polled. */
  watch(changed: (server: string) => void): void

  /** Ends guests of this agent that are not among `servers`, with all they left: a crash came between their start and their definition's
   *  removal. Called once, first of all. */
  endStrays(servers: ReadonlySet<string>): Promise<void>
  /** Finds the guest that runs under this definition, or an older one of the server, and takes hold of it. Starts nothing. */
  adopt(definition: ServerDefinition): Promise<GuestState>
  /** Tells a hypervisor that keeps definitions of its own. The guest, if it runs, is not touched. */
  define(definition: ServerDefinition): Promise<void>
  /** Starts the guest with all its disks and NICs; running already: no change. Resolves when the hypervisor executes it.
   *  Throws GUEST_FAILED with the hypervisor's words; then nothing of the guest is left running. */
  start(definition: ServerDefinition): Promise<void>
  /** Asks the guest to power off, and stops it when it has not after `graceMs` or when `hurry` is aborted. Resolves when it is off. */
  powerDown(server: string, graceMs: number, hurry: AbortSignal): Promise<void>
  /** Off at once, as if the plug was pulled; resolves when nothing of it runs. Off, or unknown: no change. Throws GUEST_FAILED when it
   *  does not end. */
  stop(server: string): Promise<void>
  /** `stop`, and nothing is left of the guest: no process, socket, pid file, or entry in the hypervisor. The folder of the server is
   *  deleted by the caller afterwards. */
  remove(server: string): Promise<void>
  /** Plugs a device into the running guest; resolves when the guest can see it. Has it already: no change. Off: no change.
   *  Throws GUEST_FAILED; then the guest does not have it. */
  attach(server: string, device: GuestDevice): Promise<void>
  /** Asks the guest to release a device; resolves when it has, or when it has not after a few seconds or when `hurry` is aborted
   *  (`state.releasing` says so; asking again is right). Has it not, or off: no change. After it released a disk, nothing of the guest has
   *  the export open. Several may be asked for at once. */
  detach(server: string, device: GuestDeviceName, hurry: AbortSignal): Promise<void>
  /** From what the hypervisor says. Never throws for a guest that does not answer: that is power `unknown`. */
  state(server: string): Promise<GuestState>
  /** What the guest wrote to its serial console, the newest CONSOLE_BYTES_MAX at least as far as it was kept; also after its end. With
   *  `start`: only since its last start, where the driver can tell; else all. */
  console(server: string, since?: 'start'): Promise<string>
  /** A way into the guests' networks; null: there is none that would stay inside them. */
  readonly network: GuestNetwork | null
  /** A fresh connection to the guest agent of a running guest, which may or may not be there; undefined: this guest has no channel. */
  guestAgent(server: string): Promise<Duplex | undefined>
  /** Lets go of the guests; they go on. */
  close(): Promise<void>
}

/** Questions to a guest from inside its own network, as the network's gateway. They change nothing there. */
export interface GuestNetwork {
  /** Whether the guest has used the address of its NIC since its start. When it has not, it is asked to show itself: ask again. */
  addressed(server: string, port: string): Promise<boolean>
  /** Connects over TCP, sends at most one segment, and reads what comes until the other side ends it. Never throws for what a guest does. */
  ask(server: string, port: string, what: NetworkQuestion): Promise<NetworkAnswer>
}

export interface NetworkQuestion {
  readonly port: number
  /** At most 1460 bytes; empty: only whether the connection is accepted. */
  readonly send: Buffer
  readonly answerBytesMax: number
  readonly limitMs: number
}

export interface NetworkAnswer {
  /** See switch/tcp-client.ts; `no_gateway`: nobody in the network to ask as; `busy`: too many questions at once; `unplugged`: the NIC is off. */
  readonly kind:
    | 'accepted'
    | 'answered'
    | 'refused'
    | 'reset'
    | 'silent'
    | 'late'
    | 'no_gateway'
    | 'busy'
    | 'unplugged'
  readonly answer: Buffer
}

/** What is kept of a guest's console; a driver may keep up to twice as much for a moment. */
export const CONSOLE_BYTES_MAX = 1024 * 1024

/** What every driver is made with. */
export interface DriverDeps {
  /** Name of the site's parts, without a hyphen at its end: `az1`. Pid files are `RUN/SITE-guest-SERVER.pid`. */
  readonly prefix: string
  readonly runDir: string
  /** The folder of a server, which exists while a driver is called for it. `definition.json` in it is not the driver's. */
  folder(server: string): string
  /** For what belongs to no server. Exists. */
  readonly directory: string
  /** Unix socket of the agent's NBD exports. */
  readonly nbdSocket: string
  readonly clock: Clock
  readonly log: Log
}

/**
 * The network between the guests of one agent, for drivers whose guests take QEMU's `-netdev`. `plug` comes before the guest is started or
 * gets its NIC, `unplug` after it has ended or released it. Both are idempotent.
 */
export interface Switchboard {
  /**
   * Makes a place for the NIC, or finds the one that it has. The definition may have changed (address, DNS): the place follows it.
   * `held`: what a guest that runs was given by an earlier agent and goes on using; the place must be the same one again.
   */
  plug(server: string, nic: ServerNic, about: PlugAbout): Promise<Netdev>
  /** Forgets the place. Unknown: no change. */
  unplug(server: string, port: string): Promise<void>
}

export interface PlugAbout {
  /** The server's name, which DHCP offers as host name (not checked for being one). */
  readonly name: string
  readonly held: Netdev | undefined
}

/** Arguments of QMP's `netdev_add` without `id`: `{type: 'dgram', local: {...}, remote: {...}}`. Plain JSON; kept by the driver across
 *  restarts of the agent for as long as the guest runs. */
export type Netdev = Readonly<Record<string, unknown>> & { readonly type: string }

/** May this site's guests use the volume now? */
export type DiskStanding =
  /** The site serves it, or serves it again by itself: a hold, a freeze, a session that is not ready yet. Requests wait, guests go on. */
  | { readonly kind: 'served' }
  | { readonly kind: 'waiting'; readonly reason: string }
  /** Another site may write it, or nobody may here: a guest that has it is stopped at once. */
  | { readonly kind: 'denied'; readonly reason: string }
  /** There is no such volume here; a guest that has it is stopped at once. */
  | { readonly kind: 'unknown' }

export interface DiskStandings {
  of(volume: string): DiskStanding
  /** `changed` is called when the standing of a volume may have changed. */
  watch(changed: (volume: string) => void): void
}
