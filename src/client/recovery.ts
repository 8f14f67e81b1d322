import type { ApiSession } from './api.ts'

/* Holdfast's own interface to recovery plans, the runs that follow them, and automatic failover. */

const groupPath = (group: string): string => `/api/v1/groups/${encodeURIComponent(group)}`

export type PlanProbe =
  | { readonly kind: 'boot'; readonly marker?: string }
  | { readonly kind: 'tcp'; readonly port: number }
  | {
      readonly kind: 'http'
      readonly port: number
      readonly path: string
      readonly status?: number
      readonly contains?: string
    }
  | { readonly kind: 'command'; readonly command: readonly string[] }

export interface PlanScript {
  readonly script: string
  readonly timeout_s?: number
}

export interface PlanSettings {
  readonly after?: readonly string[]
  readonly probes?: readonly { readonly probe: PlanProbe; readonly timeout_s?: number }[]
  readonly not_ready?: 'go_on' | 'stop' | 'pause'
  readonly script_before?: PlanScript
  readonly script_after?: PlanScript
}

export interface PlanDocument {
  readonly waves?: readonly { readonly instances: readonly string[]; readonly pause?: string }[]
  readonly instances?: Readonly<Record<string, PlanSettings>>
}

export interface RecoveryPlan {
  readonly plan: PlanDocument
  /** Of the group's instances, by id. */
  readonly names: Readonly<Record<string, string>>
  readonly updated_at: string
  readonly updated_by: string
}

interface Script {
  readonly ok: boolean
  readonly reason: string | null
  readonly output: string
  readonly attempts: number
}

export interface Recovery {
  readonly id: string
  readonly reason: string
  readonly site: string
  readonly state: string
  readonly waits_for: string | null
  readonly started_at: string
  readonly ended_at: string | null
  readonly servers: readonly {
    readonly instance: string
    readonly name: string | null
    readonly server: string
    readonly wave: number
    readonly state: string
    readonly started_at: string | null
    readonly ready_after_ms: number | null
    readonly reason: { readonly code: string; readonly message: string } | null
    readonly probes: readonly { readonly ok: boolean; readonly detail: string }[]
    readonly script_before: Script | null
    readonly script_after: Script | null
  }[]
}

export async function showPlan(api: ApiSession, group: string): Promise<RecoveryPlan | null> {
  const path = `${groupPath(group)}/recovery-plan`
  return (await api.get<{ recovery_plan: RecoveryPlan | null }>(path)).recovery_plan
}

export async function setPlan(
  api: ApiSession,
  group: string,
  plan: PlanDocument,
): Promise<RecoveryPlan> {
  const path = `${groupPath(group)}/recovery-plan`
  return (await api.put<{ recovery_plan: RecoveryPlan }>(path, plan)).recovery_plan
}

export async function deletePlan(api: ApiSession, group: string): Promise<void> {
  await api.delete(`${groupPath(group)}/recovery-plan`)
}

export interface RecoveryPage {
  readonly recoveries: readonly Recovery[]
  /** There are older ones: the marker of the next page. */
  readonly next_marker: string | null
}

/** Newest first; `marker`: only those older than this recovery. */
export const pageOfRecoveries = (
  api: ApiSession,
  group: string,
  limit: number,
  marker?: string,
): Promise<RecoveryPage> => {
  const behind = marker === undefined ? '' : `&marker=${encodeURIComponent(marker)}`
  return api.get<RecoveryPage>(`${groupPath(group)}/recovery?limit=${limit}${behind}`)
}

export const listRecoveries = async (
  api: ApiSession,
  group: string,
  limit: number,
): Promise<readonly Recovery[]> => (await pageOfRecoveries(api, group, limit)).recoveries

/** Of a group of any API, paused or not. Returns the operation. */
export async function failOverAnyGroup(
  api: ApiSession,
  group: string,
  said: { readonly force: boolean; readonly preferredOff: boolean },
): Promise<string> {
  const body = { force: said.force, preferred_off: said.preferredOff }
  return (await api.post<{ operation_id: string }>(`${groupPath(group)}/failover`, body))
    .operation_id
}

/** The operation of the recovery. */
export async function recoverGroup(api: ApiSession, group: string): Promise<string> {
  return (await api.post<{ operation: string }>(`${groupPath(group)}/recover`, {})).operation
}

export async function commandRecovery(
  api: ApiSession,
  group: string,
  command: 'continue' | 'abort',
): Promise<string> {
  const path = `${groupPath(group)}/recovery/${command}`
  return (await api.post<{ operation: string }>(path, {})).operation
}

// ---------------------------------------------------------------- automatic failover

interface Reason {
  readonly code: string
  readonly message: string
}

export interface AutomaticFailover {
  readonly enabled: boolean
  readonly armed: boolean
  readonly hold: string | null
  readonly silence_s: number
  readonly cool_down_s: number
  readonly verdict: string | null
  readonly reasons: readonly Reason[]
  readonly acted_at: string | null
  readonly operation: string | null
  readonly history: readonly {
    readonly at: string
    readonly verdict: string
    readonly reasons: readonly Reason[]
    readonly operation: string | null
  }[]
}

interface Shown {
  readonly automatic_failover: AutomaticFailover
}

const automaticPath = (group: string) => `${groupPath(group)}/automatic-failover`

export async function showAutomaticFailover(
  api: ApiSession,
  group: string,
  limit: number,
): Promise<AutomaticFailover> {
  return (await api.get<Shown>(`${automaticPath(group)}?limit=${limit}`)).automatic_failover
}

export async function changeAutomaticFailover(
  api: ApiSession,
  group: string,
  change: {
    readonly enabled?: boolean
    readonly silence_s?: number
    readonly cool_down_s?: number
    readonly hold?: string | null
  },
): Promise<AutomaticFailover> {
  return (await api.put<Shown>(automaticPath(group), change)).automatic_failover
}

export async function rearmAutomaticFailover(
  api: ApiSession,
  group: string,
): Promise<AutomaticFailover> {
  return (await api.post<Shown>(`${automaticPath(group)}/rearm`, {})).automatic_failover
}
