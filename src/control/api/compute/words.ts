import { createHash } from 'node:crypto'
import type { ServerView } from '#control/resources/server-views.ts'
import { fromJson } from '#control/store/json.ts'
import type { ServerRow } from '#control/store/tables/servers.ts'
import type { ServerStatus } from '#domain/server.ts'

/* What the two server APIs have in common: the words for states, the forms of times, and what clients write in several ways. They
 * show the same servers, so that a client may create one here and watch it there. */

/** An unknown word makes the waiting of Terraform providers fail: these are all. */
const STATUSES: Record<ServerStatus, { readonly status: string; readonly vm: string }> = {
  building: { status: 'BUILD', vm: 'building' },
  active: { status: 'ACTIVE', vm: 'active' },
  stopped: { status: 'SHUTOFF', vm: 'stopped' },
  rebooting: { status: 'REBOOT', vm: 'active' },
  hard_rebooting: { status: 'HARD_REBOOT', vm: 'active' },
  error: { status: 'ERROR', vm: 'error' },
}

/** Numbers of libvirt, as clients decode them. */
const POWERS: Readonly<Record<string, number>> = { running: 1, paused: 3, off: 4 }

/** `BUILD`, `ACTIVE` ... */
export const statusWord = (row: ServerRow): string => STATUSES[row.status as ServerStatus].status

/** The members about its state, the same in both. */
export const stateMembers = (row: ServerRow) => ({
  'OS-EXT-STS:vm_state': STATUSES[row.status as ServerStatus].vm,
  'OS-EXT-STS:task_state': taskWord(row),
  // What the hypervisor said last; nothing has been said of a server that is being made.
  'OS-EXT-STS:power_state': row.status === 'building' ? 0 : (POWERS[row.power] ?? 0),
})

function taskWord({ status, task }: ServerRow): string | null {
  return status === 'hard_rebooting' && task === 'rebooting' ? 'reboot_started_hard' : task
}

/** `2026-01-02T03:04:05Z` */
export const secondTime = (ms: number): string => `${new Date(ms).toISOString().slice(0, 19)}Z`

/** `2026-01-02T03:04:05.000000`, UTC; null stays null. */
export const launchTime = (ms: number | null): string | null =>
  ms === null ? null : `${new Date(ms).toISOString().slice(0, 23)}000`

/** Names the host of a site to one project and nobody else. */
export function hostId({ project, az }: ServerRow): string {
  const text = `${project} ${az}`
  const known = hostIds.get(text)
  if (known !== undefined) return known
  const made = createHash('sha224').update(text).digest('hex')
  if (hostIds.size >= HOST_IDS_KEPT) hostIds.clear()
  hostIds.set(text, made)
  return made
}

/** A list of a thousand servers has one or two of them. At the limit all are forgotten and made again. */
const HOST_IDS_KEPT = 1_000
const hostIds = new Map<string, string>()

/** Only of a server in error: clients take its presence for that. */
export function faultMember(row: ServerRow) {
  if (row.status !== 'error' || row.fault === null) return {}
  const { code, message, at } = fromJson<{ code: string; message: string; at: number }>(row.fault)
  const fault = { code: 500, message, details: code, created: secondTime(at) }
  return { fault }
}

export const metadataOf = (row: ServerRow): Record<string, string> =>
  fromJson<Record<string, string>>(row.metadata)

/** `key=value`, or only the key. */
export const tagText = ([key, value]: readonly [string, string]): string =>
  value === '' ? key : `${key}=${value}`

/** What a list may be narrowed by. Undefined: not narrowed. */
export interface ServerFilter {
  readonly name: string | undefined
  readonly status: string | undefined
  readonly flavor: string | undefined
  readonly image: string | undefined
  readonly az: string | undefined
  /** A part of an address. */
  readonly ip: string | undefined
  /** The whole of one. */
  readonly ipExact: string | undefined
  /** Changed at this time or later, ms. */
  readonly changedSince: number | undefined
  /** All of these. */
  readonly tags: readonly (readonly [string, string])[]
}

/** What needs the row only, for before anything else is read. */
export const rowMatches = (row: ServerRow, filter: ServerFilter): boolean =>
  (filter.name === undefined || nameMatches(row.name, filter.name)) &&
  (filter.status === undefined || statusWord(row) === filter.status) &&
  (filter.flavor === undefined || row.flavor === filter.flavor) &&
  (filter.image === undefined || row.image === filter.image) &&
  (filter.az === undefined || row.az === filter.az) &&
  (filter.changedSince === undefined || row.updated_at >= filter.changedSince)

export function viewMatches(view: ServerView, filter: ServerFilter): boolean {
  const addresses = view.nics.map(({ port }) => port.address)
  return (
    (filter.ip === undefined || addresses.some((one) => one.includes(filter.ip ?? ''))) &&
    (filter.ipExact === undefined || addresses.includes(filter.ipExact)) &&
    filter.tags.every(([key, value]) => view.tags[key] === value)
  )
}

/** True when nothing but rows is needed to narrow the list. */
export const needsViews = (filter: ServerFilter): boolean =>
  filter.ip !== undefined || filter.ipExact !== undefined || filter.tags.length > 0

/**
 * A part of the name. Clients of the older API may send an expression; of those only the anchors `^` and `$` mean something here, since
 * a caller's expression could keep the process busy for ever.
 */
function nameMatches(name: string, wanted: string): boolean {
  const start = wanted.startsWith('^')
  const end = wanted.endsWith('$')
  const text = wanted.slice(start ? 1 : 0, end ? -1 : undefined)
  if (start && end) return name === text
  if (start) return name.startsWith(text)
  return end ? name.endsWith(text) : name.includes(text)
}

/** `?name=x&name=y` gives `x`; absent or empty gives undefined. */
export function one(query: Readonly<Record<string, unknown>>, name: string): string | undefined {
  const value = query[name]
  const first: unknown = Array.isArray(value) ? value[0] : value
  return typeof first === 'string' && first !== '' ? first : undefined
}
