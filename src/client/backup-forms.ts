import type { ApiSession } from './api.ts'

/* Backups in the forms that the published API does not have, over Holdfast's own. */

const id = encodeURIComponent
const backupPath = (backup: string): string => `/api/v1/backups/${id(backup)}`

export interface AttachedDisk {
  readonly export: string
  readonly volume: string
  readonly size_bytes: number
}

export interface BackupAttachment {
  readonly status: string
  readonly site: string
  readonly exports: readonly AttachedDisk[]
  readonly unix: string | null
  readonly tcp: { readonly host: string; readonly port: number; readonly tls: boolean } | null
}

export interface BackupDetail {
  readonly id: string
  readonly name: string
  readonly status: string
  readonly attachment: BackupAttachment | null
}

export interface AcceptedBackup {
  readonly backup: BackupDetail
  readonly operation_id: string
}

export const showBackupDetail = async (api: ApiSession, backup: string): Promise<BackupDetail> =>
  (await api.get<{ backup: BackupDetail }>(backupPath(backup))).backup

export const attachBackup = (
  api: ApiSession,
  backup: string,
  site: string | undefined,
): Promise<AcceptedBackup> =>
  api.post<AcceptedBackup>(`${backupPath(backup)}/attach`, site === undefined ? {} : { site })

export const detachBackup = (api: ApiSession, backup: string): Promise<AcceptedBackup> =>
  api.post<AcceptedBackup>(`${backupPath(backup)}/detach`, {})

export interface NewGroupBackup {
  readonly name?: string
  readonly description?: string
  readonly incremental: boolean
  readonly rate_bytes?: number
}

export const backUpGroup = (
  api: ApiSession,
  group: string,
  wanted: NewGroupBackup,
): Promise<AcceptedBackup> => api.post<AcceptedBackup>(`/api/v1/groups/${id(group)}/backup`, wanted)

/** Members that are left out are what the server decides. */
export interface RestoreWish {
  /** All, when left out. */
  readonly disks?: readonly { readonly disk: string; readonly volume?: string }[]
  readonly server?: string
  readonly new_volumes?: boolean
  readonly name?: string
  readonly volume_type?: string
  readonly site?: string
  readonly power_on?: boolean
  readonly rate_bytes?: number
}

export interface BegunRestore {
  readonly restore_id: string
  readonly operation_id: string
  readonly volumes: readonly string[]
}

export const restoreInForm = (
  api: ApiSession,
  backup: string,
  wish: RestoreWish,
): Promise<BegunRestore> => api.post<BegunRestore>(`${backupPath(backup)}/restore`, wish)

// ---------------------------------------------------------------- rates

/** Bytes per second; 0: as fast as it goes. */
export interface BackupRates {
  readonly backup: number
  readonly restore: number
  readonly copy: number
}

const RATES = '/api/v1/backup-rates'

export const showRates = async (api: ApiSession): Promise<BackupRates> =>
  (await api.get<{ rates: BackupRates }>(RATES)).rates

export const setRates = async (
  api: ApiSession,
  rates: Partial<BackupRates>,
): Promise<BackupRates> => (await api.put<{ rates: BackupRates }>(RATES, { rates })).rates
