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
