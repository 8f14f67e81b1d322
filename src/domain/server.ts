import { unreachable } from '#base/assert.ts'

/** The life of a server as the inventory has it. What the hypervisor says stands beside it, as `power`. */
export type ServerStatus =
  | 'building'
  | 'active'
  | 'stopped'
  | 'rebooting'
  | 'hard_rebooting'
  | 'error'

/** What an operation does to the server. While there is one, others are refused. Disks come and go without one: they queue. */
export type ServerTask =
  | 'scheduling'
  | 'block_device_mapping'
  | 'spawning'
  | 'powering-on'
  | 'powering-off'
  | 'rebooting'
  /** Its protected instance gets another flavor. */
  | 'resizing'
  | 'deleting'

/** Every legal move. A deleted server has no state: its row is gone. */
export const SERVER_MOVES: Record<ServerStatus, readonly ServerStatus[]> = {
  // A server that protects another is made to be off.
  building: ['active', 'stopped', 'error'],
  active: ['stopped', 'rebooting', 'hard_rebooting', 'error'],
  stopped: ['active', 'hard_rebooting', 'error'],
  rebooting: ['active', 'stopped', 'error'],
  hard_rebooting: ['active', 'stopped', 'error'],
  error: ['active', 'stopped', 'hard_rebooting'],
}

export const SERVER_STATUSES = Object.keys(SERVER_MOVES) as ServerStatus[]

export interface ServerFacts {
  readonly status: ServerStatus
  readonly task: ServerTask | null
  /** It belongs to a protected instance. */
  readonly protected: boolean
  /** False: it has replicated disks, and its site is not the one that may write them. */
  readonly production: boolean
}

export type ServerCommand =
  | { readonly kind: 'start' }
  | { readonly kind: 'stop' }
  | { readonly kind: 'reboot'; readonly hard: boolean }
  | { readonly kind: 'attach' }
  | { readonly kind: 'detach'; readonly root: boolean; readonly replicated: boolean }
  | { readonly kind: 'delete' }
  | { readonly kind: 'change' }

export type ServerRefusal =
  /** Something else is being done to it. */
  | 'SERVER_BUSY'
  | 'SERVER_STATE'
  /** Its protected instance has to be deleted first. */
  | 'SERVER_PROTECTED'
  /** Only the server at the production site runs. */
  | 'SERVER_NOT_PRODUCTION'
  /** The disk that it boots from goes only while it is off. */
  | 'SERVER_ROOT_DISK'
  /** The disk belongs to a replication pair of its protected instance. */
  | 'SERVER_DISK_REPLICATED'

export type ServerDecision =
  | {
      readonly ok: true
      /** Status and task from now on, until the operation has ended. */
      readonly status: ServerStatus
      readonly task: ServerTask | null
      /** True: it is so already. Nothing is to be done. */
      readonly already: boolean
    }
  | { readonly ok: false; readonly refusal: ServerRefusal }

/** Decides; does nothing. */
export function decideServer(facts: ServerFacts, command: ServerCommand): ServerDecision {
  const { status, task } = facts
  switch (command.kind) {
    case 'change':
      return task === 'deleting' ? refuse('SERVER_BUSY') : go(status, task)
    case 'delete':
      // Before anything else: a protected server stays, whatever state it is in.
      if (facts.protected) return refuse('SERVER_PROTECTED')
      return task === 'deleting' ? already(status, task) : go(status, 'deleting')
    case 'start':
      if (task !== null) return refuse('SERVER_BUSY')
      if (status === 'active') return already(status, null)
      if (status !== 'stopped') return refuse('SERVER_STATE')
      return facts.production ? go(status, 'powering-on') : refuse('SERVER_NOT_PRODUCTION')
    case 'stop':
      if (task !== null) return refuse('SERVER_BUSY')
      if (status === 'stopped') return already(status, null)
      return status === 'active' || status === 'error'
        ? go(status, 'powering-off')
        : refuse('SERVER_STATE')
    case 'reboot':
      if (task !== null) return refuse('SERVER_BUSY')
      if (!command.hard) {
        return status === 'active' ? go('rebooting', 'rebooting') : refuse('SERVER_STATE')
      }
      if (status !== 'active' && status !== 'stopped' && status !== 'error') {
        return refuse('SERVER_STATE')
      }
      return facts.production ? go('hard_rebooting', 'rebooting') : refuse('SERVER_NOT_PRODUCTION')
    case 'attach':
      if (task !== null) return refuse('SERVER_BUSY')
      return status === 'active' || status === 'stopped' ? go(status, null) : refuse('SERVER_STATE')
    case 'detach':
      if (command.replicated) return refuse('SERVER_DISK_REPLICATED')
      if (task !== null) return refuse('SERVER_BUSY')
      if (status !== 'active' && status !== 'stopped') return refuse('SERVER_STATE')
      if (command.root && status !== 'stopped') return refuse('SERVER_ROOT_DISK')
      return go(status, null)
    default:
      return unreachable(command)
  }
}

const go = (status: ServerStatus, task: ServerTask | null): ServerDecision => ({
  ok: true,
  status,
  task,
  already: false,
})
const already = (status: ServerStatus, task: ServerTask | null): ServerDecision => ({
  ok: true,
  status,
  task,
  already: true,
})
const refuse = (refusal: ServerRefusal): ServerDecision => ({ ok: false, refusal })

/** What the hypervisor says of a guest. */
export type GuestPower = 'running' | 'off' | 'paused' | 'unknown'

/**
 * The status of a server of which its site says this; null: it stays. While an operation works on the server its status is the
 * operation's. `whole`: its error is only that nobody knew how it was.
 */
export function statusAfterReport(
  { status, task }: Pick<ServerFacts, 'status' | 'task'>,
  power: GuestPower,
  whole: boolean,
): ServerStatus | null {
  if (task !== null || (status === 'error' && !whole)) return null
  if (status !== 'active' && status !== 'stopped' && status !== 'error') return null
  const said = power === 'running' ? 'active' : power === 'off' ? 'stopped' : status
  return said === status ? null : said
}
