import { Fault } from '#base/fault.ts'
import type { ApiSession } from './api.ts'
import { JOB_FAILED } from './faults.ts'
import { waitFor, type WaitOptions } from './sdrs.ts'

/* Holdfast's own interface to verification, divergence records, rebuilds and snapshots. */

const id = encodeURIComponent

// ---------------------------------------------------------------- operations

export interface OperationState {
  readonly id: string
  readonly kind: string
  readonly resource_id: string
  readonly status: 'pending' | 'running' | 'succeeded' | 'failed' | 'cancelled'
  readonly step: string | null
  readonly progress: number
  readonly error_code: string | null
  readonly fail_reason: string | null
}

export async function showOperation(api: ApiSession, operation: string): Promise<OperationState> {
  const path = `/api/v1/operations/${id(operation)}`
  return (await api.get<{ operation: OperationState }>(path)).operation
}

const ENDED = new Set(['succeeded', 'failed', 'cancelled'])

export interface OperationWaitOptions extends Omit<WaitOptions, 'onState'> {
  readonly onState?: (state: OperationState) => void
  /** True: it has come far enough, and is left to itself. Default: only its end is. */
  readonly isEnough?: (state: OperationState) => boolean
}

/** Throws JOB_FAILED when it fails or is cancelled. */
export async function waitForOperation(
  api: ApiSession,
  operation: string,
  options: OperationWaitOptions,
): Promise<OperationState> {
  const seen = await waitFor(
    `operation ${operation}`,
    async () => {
      const state = await showOperation(api, operation)
      options.onState?.(state)
      return state
    },
    (state) => ENDED.has(state.status) || options.isEnough?.(state) === true,
    { clock: options.clock, limitMs: options.limitMs },
  )
  const { status, kind, error_code, fail_reason } = seen
  if (status !== 'failed' && status !== 'cancelled') return seen
  const reason = `${error_code ?? status} ${fail_reason ?? ''}`.trim()
  throw new Fault(JOB_FAILED, `operation ${operation} (${kind}): ${reason}`, { operation })
}

// ---------------------------------------------------------------- verification

export interface VerifiedRange {
  readonly pair: string
  readonly volume: string
  readonly offset: number
  readonly length: number
  readonly kind: string
  readonly repaired: boolean
}

export interface Verification {
  readonly group: string
  readonly site: string | null
  readonly operation_id: string | null
  readonly run: {
    readonly run: string
    readonly state: string
    readonly reason: string | null
    readonly repair: boolean
    readonly total_bytes: number
    readonly compared_bytes: number
    readonly rechecked_blocks: number
    readonly mismatched_bytes: number
    readonly repaired_bytes: number
    readonly started_at: number
    readonly ended_at: number | null
    readonly ranges: readonly VerifiedRange[]
    readonly ranges_left_out: number
  } | null
  readonly pairs: readonly {
    readonly pair: string
    readonly volume: string
    readonly last_verified_at: number | null
    readonly mismatched_bytes: number
  }[]
}

const verifyPath = (group: string): string => `/api/v1/groups/${id(group)}/verify`

/** Settles with the operation's id. */
export async function verifyGroup(
  api: ApiSession,
  group: string,
  wanted: { readonly repair: boolean; readonly rateBytes: number },
): Promise<string> {
  const body = { repair: wanted.repair, rate_bytes: wanted.rateBytes }
  return (await api.post<{ operation_id: string }>(verifyPath(group), body)).operation_id
}

export async function showVerification(api: ApiSession, group: string): Promise<Verification> {
  return (await api.get<{ verify: Verification }>(verifyPath(group))).verify
}

export async function cancelVerification(api: ApiSession, group: string): Promise<string> {
  return (await api.post<{ operation_id: string }>(`${verifyPath(group)}/cancel`, {})).operation_id
}

// ---------------------------------------------------------------- rebuild

/** Settles with the operation's id. */
export async function rebuildPair(api: ApiSession, pair: string, force: boolean): Promise<string> {
  const path = `/api/v1/pairs/${id(pair)}/rebuild`
  return (await api.post<{ operation_id: string }>(path, { force })).operation_id
}

// ---------------------------------------------------------------- divergence records

export interface Divergence {
  readonly id: string
  readonly group: string
  readonly site: string
  readonly winner: string
  readonly base_epoch: number
  readonly epoch: number
  readonly at: string
  readonly why: string
  readonly state: string
  readonly reason: string | null
  readonly bytes: number
  readonly volumes: readonly {
    readonly volume: string
    readonly pair: string
    readonly size_bytes: number
    readonly ranges: number
    readonly bytes: number
  }[]
}

export interface KeptRange {
  readonly offset: number
  readonly length: number
}

export interface DivergenceList {
  readonly divergences: readonly Divergence[]
  /** Could not be asked: they may have more. */
  readonly silent_sites: readonly string[]
}

export const listDivergences = (api: ApiSession, group?: string): Promise<DivergenceList> =>
  api.get<DivergenceList>(
    group === undefined ? '/api/v1/divergences' : `/api/v1/groups/${id(group)}/divergences`,
  )

const divergencePath = (divergence: string): string => `/api/v1/divergences/${id(divergence)}`

export async function showDivergence(api: ApiSession, divergence: string): Promise<Divergence> {
  return (await api.get<{ divergence: Divergence }>(divergencePath(divergence))).divergence
}

/** All kept ranges of a volume, in order. */
export async function keptRanges(
  api: ApiSession,
  divergence: string,
  volume: string,
): Promise<KeptRange[]> {
  const all: KeptRange[] = []
  for (let from: number | null = 0; from !== null; ) {
    const path = `${divergencePath(divergence)}/ranges?volume=${id(volume)}&from=${from}&limit=10000`
    const page: { ranges: KeptRange[]; next: number | null } = await api.get(path)
    all.push(...page.ranges)
    from = page.next
  }
  return all
}

/** Longest piece that is asked for at once. */
export const DOWNLOAD_BYTES_MAX = 8 * 1024 * 1024

/** Bytes of a kept range, at most DOWNLOAD_BYTES_MAX of them. */
export const downloadRange = (
  api: ApiSession,
  divergence: string,
  volume: string,
  { offset, length }: KeptRange,
): Promise<Uint8Array> =>
  api.download(
    `${divergencePath(divergence)}/data?volume=${id(volume)}&offset=${offset}&length=${length}`,
  )

export async function deleteDivergence(api: ApiSession, divergence: string): Promise<Divergence> {
  return (await api.delete<{ divergence: Divergence }>(divergencePath(divergence))).divergence
}

// ---------------------------------------------------------------- snapshots

export interface Snapshot {
  readonly id: string
  readonly name: string
  readonly group: string | null
  readonly site: string
  readonly status: string
  readonly reason: string | null
  readonly created_at: string
  readonly taken_at: string | null
  readonly stall_ms: number | null
  readonly epoch: number | null
  readonly sequence: number | null
  readonly volumes: readonly {
    readonly id: string
    readonly kind: string | null
    readonly size_bytes: number | null
  }[]
}

export interface AcceptedSnapshot {
  readonly snapshot: Snapshot
  readonly operation_id: string
}

export const createSnapshot = (
  api: ApiSession,
  wanted: {
    readonly name: string
    readonly group?: string
    readonly volumes?: readonly string[]
    readonly site?: string
  },
): Promise<AcceptedSnapshot> => api.post<AcceptedSnapshot>('/api/v1/snapshots', wanted)

export async function listSnapshots(api: ApiSession, group?: string): Promise<Snapshot[]> {
  const query = group === undefined ? '' : `?group=${id(group)}`
  return (await api.get<{ snapshots: Snapshot[] }>(`/api/v1/snapshots${query}`)).snapshots
}

const snapshotPath = (snapshot: string): string => `/api/v1/snapshots/${id(snapshot)}`

export async function showSnapshot(api: ApiSession, snapshot: string): Promise<Snapshot> {
  return (await api.get<{ snapshot: Snapshot }>(snapshotPath(snapshot))).snapshot
}

export const deleteSnapshot = (api: ApiSession, snapshot: string): Promise<AcceptedSnapshot> =>
  api.delete<AcceptedSnapshot>(snapshotPath(snapshot))

export const rollBackSnapshot = (api: ApiSession, snapshot: string): Promise<AcceptedSnapshot> =>
  api.post<AcceptedSnapshot>(`${snapshotPath(snapshot)}/rollback`, {})
