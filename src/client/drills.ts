import type { AnyReport as DrillReport, SealedReport } from '#wire/reports/sealed.ts'
import type { Probe } from '#wire/site/probes.ts'
import type { ApiSession } from './api.ts'

/* Holdfast's own interface to drills, their reports and schedules. A report is checked in drill-reports.ts. */

export type { DrillReport, Probe, SealedReport }

export interface Drill {
  readonly id: string
  readonly name: string
  readonly group: string
  readonly status: string
  readonly reason: string | null
  readonly site: string
  readonly vpc: string
  readonly schedule: string | null
  readonly delete_after: boolean
  readonly timeout_ms: number
  readonly created_at: string
  readonly servers: readonly {
    readonly instance: string
    readonly server: string
    readonly name: string
    readonly state: string
    readonly reason: string | null
  }[]
  readonly began_at: string | null
  readonly given_up_at: string | null
  readonly findings: {
    readonly data_age_ms: number | null
    readonly data_age_basis: string
    readonly production_stall_ms: number
    readonly servers: DrillReport['servers']
  } | null
}

export interface AcceptedDrill {
  readonly drill: Drill
  readonly operation_id: string
}

export interface DrillWish {
  readonly probes?: Readonly<Record<string, readonly Probe[]>>
  readonly timeout_ms?: number
  readonly vpc?: string
  readonly plan?: 'follow' | 'ignore'
}

const id = encodeURIComponent
const path = (drill: string): string => `/api/v1/drills/${id(drill)}`

export const startDrill = (
  api: ApiSession,
  wanted: DrillWish & {
    readonly group: string
    readonly name: string
    readonly delete_after?: boolean
  },
): Promise<AcceptedDrill> => api.post<AcceptedDrill>('/api/v1/drills', wanted)

export async function listDrills(api: ApiSession, group?: string): Promise<readonly Drill[]> {
  const query = group === undefined ? '' : `?group=${id(group)}`
  return (await api.get<{ drills: readonly Drill[] }>(`/api/v1/drills${query}`)).drills
}

export const showDrill = async (api: ApiSession, drill: string): Promise<Drill> =>
  (await api.get<{ drill: Drill }>(path(drill))).drill

/** `force`: without waiting for a silent site, see docs/operating/drills.md. */
export const deleteDrill = (
  api: ApiSession,
  drill: string,
  force = false,
): Promise<AcceptedDrill> =>
  api.delete<AcceptedDrill>(force ? `${path(drill)}?force=true` : path(drill))

// ---------------------------------------------------------------- reports

export interface ReportEntry {
  readonly ordinal: number
  readonly drill: string
  readonly group: string
  readonly stage: string
  readonly hash: string
  readonly created_at: string
}

export async function listReports(
  api: ApiSession,
  drill?: string,
): Promise<readonly ReportEntry[]> {
  const query = drill === undefined ? '' : `?drill=${id(drill)}`
  const answer = await api.get<{ reports: readonly ReportEntry[] }>(`/api/v1/drill-reports${query}`)
  return answer.reports
}

/** The bytes that were signed: the newest report of a drill, or the one of this place in the chain. */
export const downloadReport = (
  api: ApiSession,
  wanted: { readonly drill: string } | { readonly ordinal: number },
): Promise<Uint8Array> =>
  api.download(
    'drill' in wanted ? `${path(wanted.drill)}/report` : `/api/v1/drill-reports/${wanted.ordinal}`,
  )

export const reportKey = (api: ApiSession): Promise<{ key: string; public_key: string }> =>
  api.get('/api/v1/drill-reports/key')

// ---------------------------------------------------------------- schedules

export interface DrillSchedule {
  readonly id: string
  readonly name: string
  readonly group: string
  readonly rule: string
  readonly zone: string
  readonly vpc: string | null
  readonly probes: Readonly<Record<string, readonly Probe[]>>
  readonly timeout_ms: number
  readonly enabled: boolean
  readonly run_missed: boolean
  readonly next_at: string | null
  readonly last_at: string | null
  readonly last_drill: string | null
  readonly last_outcome: string | null
  readonly last_reason: string | null
  readonly last_result: string | null
  readonly plan: string
}

export interface ScheduleWish extends DrillWish {
  readonly name?: string
  readonly rule?: string
  readonly zone?: string
  readonly enabled?: boolean
  readonly run_missed?: boolean
}

const schedulePath = (schedule: string): string => `/api/v1/drill-schedules/${id(schedule)}`
type One = { readonly schedule: DrillSchedule }

export const createSchedule = async (
  api: ApiSession,
  wanted: ScheduleWish & { readonly group: string; readonly name: string; readonly rule: string },
): Promise<DrillSchedule> => (await api.post<One>('/api/v1/drill-schedules', wanted)).schedule

export const listSchedules = async (api: ApiSession): Promise<readonly DrillSchedule[]> =>
  (await api.get<{ schedules: readonly DrillSchedule[] }>('/api/v1/drill-schedules')).schedules

export const showSchedule = async (api: ApiSession, schedule: string): Promise<DrillSchedule> =>
  (await api.get<One>(schedulePath(schedule))).schedule

export const changeSchedule = async (
  api: ApiSession,
  schedule: string,
  change: ScheduleWish,
): Promise<DrillSchedule> =>
  (await api.request<One>('PATCH', schedulePath(schedule), change)).schedule

export const deleteSchedule = async (api: ApiSession, schedule: string): Promise<void> => {
  await api.delete(schedulePath(schedule))
}
