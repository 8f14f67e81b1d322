import type { Clock } from '#base/clock.ts'
import type { BackupInfo, BackupRequest } from '#wire/site/backups.ts'
import { durationMs, newWork, type WorkRecord } from './works.ts'

/** What an agent notes of a backup. */
export interface BackupRecord extends WorkRecord {
  readonly request: BackupRequest
  /** Session of the vault, and so id of the checkpoint, of the attempt that ran last. */
  readonly attempt: string | null
  readonly checkpoint: string | null
  readonly takenMs: number | null
  readonly stallMs: number
  readonly totalBytes: number
  readonly doneBytes: number
  readonly readBytes: number
  readonly storedBytes: number
  readonly manner: BackupInfo['manner']
}

export const newBackup = (request: BackupRequest, clock: Clock): BackupRecord => ({
  ...newWork(request.backup, clock),
  request,
  attempt: null,
  checkpoint: null,
  takenMs: null,
  stallMs: 0,
  totalBytes: 0,
  doneBytes: 0,
  readBytes: 0,
  storedBytes: 0,
  manner: 'full',
})

export const backupInfo = (record: BackupRecord, clock: Clock): BackupInfo => ({
  backup: record.id,
  state: record.state,
  code: record.code,
  reason: record.reason,
  checkpoint: record.checkpoint,
  taken_at: record.takenMs,
  stall_ms: record.stallMs,
  total_bytes: record.totalBytes,
  done_bytes: record.doneBytes,
  read_bytes: record.readBytes,
  stored_bytes: record.storedBytes,
  manner: record.manner,
  duration_ms: durationMs(record, clock),
})
