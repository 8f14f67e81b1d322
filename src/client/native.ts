import type { ApiSession } from './api.ts'

/* Holdfast's own interface under /api/v1: what the commands need of it. */

/** Where a volume may be written now. */
export interface VolumeConnection {
  /** Export name to ask the NBD server for. */
  readonly export: string
  /** Unix socket at the agent's own machine. */
  readonly unix: string
  /** Null when the agent exports over its unix socket only. */
  readonly tcp: {
    readonly host: string
    readonly port: number
    readonly tls: boolean
    /** PEM of the authority that signed the server's certificate. */
    readonly ca?: string
  } | null
}

export const showConnection = (api: ApiSession, volume: string): Promise<VolumeConnection> =>
  api.get<VolumeConnection>(`/api/v1/volumes/${encodeURIComponent(volume)}/connection`)

/** A client certificate for the NBD exports of the project, PEM. */
export interface NbdCredential {
  readonly cert: string
  readonly key: string
  readonly ca: string
  readonly expires_at: string
}

/** The key is told this once. */
export const issueNbdCredential = (api: ApiSession): Promise<NbdCredential> =>
  api.post<NbdCredential>('/api/v1/nbd-credentials', {})

// ---------------------------------------------------------------- groups

const id = encodeURIComponent
const groupPath = (group: string): string => `/api/v1/groups/${id(group)}`

/** What the witness and both sites say about a group. */
export interface GroupDetail {
  readonly id: string
  readonly name: string
  /** Who manages it: SDRS, or the volume API; `lone` is a pair of the latter that is in no group. */
  readonly form: 'sdrs' | 'evs' | 'lone'
  readonly status: string
  readonly sync: string
  readonly fault_level: string
  readonly age_ms: number | null
  /** Every replicating pair was verified then or later; null: one never was. */
  readonly last_verified_at: string | null
  /** What the last verifications found different and did not repair. */
  readonly mismatched_bytes: number
  readonly record: {
    readonly epoch: number
    readonly state: string
    readonly writer: string
    readonly replica: string
    readonly mode: string
    readonly preferred: string
    readonly alone: { readonly bytes: number; readonly since: string } | null
    readonly trusted: boolean
    readonly doubt: {
      readonly reason: 'restored' | 'agent_ahead'
      readonly awaits: readonly string[]
      readonly reported_epoch: number | null
    } | null
  } | null
  readonly sides: readonly {
    readonly site: string
    readonly role: 'production' | 'dr'
    readonly heard: boolean
    readonly age_ms: number | null
    readonly session: {
      readonly epoch: number
      readonly role: string
      readonly phase: string
      readonly link: string
      readonly consistent: boolean
      readonly progress: number
      readonly copy_kind: string
      readonly unwitnessed: boolean
      readonly out_of_touch_ms: number | null
      readonly kept: string | null
      readonly unfit: string | null
    } | null
  }[]
  readonly pairs: readonly { readonly id: string; readonly replication: string }[]
}

/** Groups of every API. */
export async function listGroupDetails(api: ApiSession): Promise<readonly GroupDetail[]> {
  return (await api.get<{ groups: readonly GroupDetail[] }>('/api/v1/groups')).groups
}

export async function showGroupDetail(api: ApiSession, group: string): Promise<GroupDetail> {
  return (await api.get<{ group: GroupDetail }>(groupPath(group))).group
}

/** States that a silent site of the group is off, so that the witness trusts its record without hearing it. */
export async function vouchForGroup(
  api: ApiSession,
  group: string,
  siteOff: string,
): Promise<GroupDetail> {
  const body = { site_off: siteOff }
  return (await api.post<{ group: GroupDetail }>(`${groupPath(group)}/vouch`, body)).group
}

/** What can be asked for before it is done. The control plane has the same list. */
export const GROUP_ACTIONS = [
  'start',
  'reprotect',
  'stop',
  'reverse',
  'failover',
  'delete',
  'drill',
] as const
export type GroupAction = (typeof GROUP_ACTIONS)[number]

interface Finding {
  readonly code: string
  readonly message: string
  /** What to do about it. */
  readonly action: string
}

interface TimePart {
  readonly name: string
  readonly ms: number
  /** Nine of ten took no longer. */
  readonly p90_ms: number | null
  readonly basis: string
}

export interface Preflight {
  readonly action: string
  readonly accepted: boolean
  readonly blockers: readonly Finding[]
  readonly warnings: readonly Finding[]
  readonly expected_loss: {
    readonly bytes: number | null
    readonly writes: number | null
    readonly ms: number | null
    readonly text: string
  } | null
  readonly expected_time: {
    readonly total_ms: number | null
    readonly p90_ms: number | null
    readonly parts: readonly TimePart[]
    readonly afterwards: readonly TimePart[]
  }
  readonly steps: readonly string[]
  readonly refusal: { readonly code: string; readonly message: string } | null
  readonly needs: readonly ('force' | 'preferred_off')[]
  readonly given_up: { readonly kind: string; readonly text: string } | null
  readonly freezes: boolean
  readonly leaves_behind: readonly string[]
  readonly dr_copy: string | null
  /** The failover of a group that is paused: over our own interface only. */
  readonly paused: boolean
  readonly copy: string
  readonly full_copy: boolean
}

/** What an action would do; changes nothing. */
export async function preflightGroup(
  api: ApiSession,
  group: string,
  action: GroupAction,
  statements: {
    readonly force?: boolean
    readonly preferredOff?: boolean
    /** For the servers of a drill. */
    readonly vpc?: string
  } = {},
): Promise<Preflight> {
  const { force, preferredOff, vpc } = statements
  const query = `action=${action}&force=${force === true}&preferred_off=${preferredOff === true}`
  const more = vpc === undefined ? '' : `&vpc=${encodeURIComponent(vpc)}`
  const path = `${groupPath(group)}/preflight?${query}${more}`
  return (await api.get<{ preflight: Preflight }>(path)).preflight
}

/** What an action was expected to take, and what it took. */
export interface Foretold {
  readonly operation: string
  readonly kind: string
  readonly status: string
  readonly begin_at: string | null
  readonly forecast_ms: number | null
  readonly actual_ms: number | null
  readonly error_percent: number | null
}

/** Newest first. */
export async function listForecasts(
  api: ApiSession,
  group: string,
  limit: number,
): Promise<readonly Foretold[]> {
  const path = `${groupPath(group)}/forecasts?limit=${limit}`
  return (await api.get<{ forecasts: readonly Foretold[] }>(path)).forecasts
}

export interface Arbitration {
  readonly mode: string
  readonly preferred: string
}

export async function showArbitration(api: ApiSession, group: string): Promise<Arbitration> {
  const path = `${groupPath(group)}/arbitration`
  return (await api.get<{ arbitration: Arbitration }>(path)).arbitration
}

/** `preferred` left out: as it is. */
export async function setArbitration(
  api: ApiSession,
  group: string,
  wanted: { readonly mode: string; readonly preferred?: string },
): Promise<Arbitration> {
  const path = `${groupPath(group)}/arbitration`
  return (await api.put<{ arbitration: Arbitration }>(path, wanted)).arbitration
}

export interface OwnershipChange {
  readonly at: string
  readonly epoch: number
  readonly kind: string
  readonly state: string
  readonly writer: string
  readonly replica: string
  readonly asked_by: string
}

/** Newest first. */
export async function showGroupHistory(
  api: ApiSession,
  group: string,
  limit: number,
): Promise<readonly OwnershipChange[]> {
  const path = `${groupPath(group)}/history?limit=${limit}`
  return (await api.get<{ changes: OwnershipChange[] }>(path)).changes
}
