import { parseAddress } from '#base/config.ts'
import { findPair, productionAz, readGroup, volumeAt } from '#control/resources/groups.ts'
import { findVolume } from '#control/resources/volumes.ts'
import type { AgentRegistry } from '#control/sites/agents.ts'
import type { Witness } from '#control/sites/witness.ts'
import type { Queries, Store } from '#control/store/store.ts'
import type {
  ProtectionGroupRow,
  ReplicationPairRow,
  VolumeRow,
} from '#control/store/tables/resources.ts'

/* Where a volume or a pair may be written now.
 *
 * A pair that replicates is served under its own id by the site that the witness names; the same disk under the volume's id is
 * the same data at one site. The answer is advice: it is the agents that refuse, whatever this says.
 */
export interface DirectoryServices {
  readonly store: Store
  readonly agents: AgentRegistry
  readonly witness: Witness
}

export type Location =
  | {
      readonly kind: 'served'
      /** Name of the NBD export. */
      readonly export: string
      readonly site: string
      /** Path of the agent's unix socket, on the agent's host. */
      readonly unix: string
      readonly tcp: { readonly host: string; readonly port: number; readonly tls: boolean } | null
    }
  | { readonly kind: 'unknown' }
  | { readonly kind: 'refused'; readonly reason: string }

/** `id`: of a volume or of a pair. */
export async function locate(
  services: DirectoryServices,
  project: string,
  id: string,
): Promise<Location> {
  const { db } = services.store
  const volume = await findVolume(db, project, id)
  if (volume !== undefined) return await locateVolume(services, db, volume)
  const pair = await findPair(db, project, id)
  if (pair === undefined) return { kind: 'unknown' }
  const group = await readGroup(db, pair.group_id)
  if (group === undefined) return { kind: 'unknown' }
  const writer = await writerOf(services, group, pair)
  if (writer.kind === 'refused') return writer
  const name = writer.session ? pair.id : volumeAt(group, pair, writer.site)
  return addressOf(services, writer.site, name)
}

async function locateVolume(
  services: DirectoryServices,
  db: Queries,
  volume: VolumeRow,
): Promise<Location> {
  if (NOT_SERVED.has(volume.status)) return refused(`The disk is ${volume.status}.`)
  const pair = volume.pair === null ? undefined : await findPair(db, volume.project, volume.pair)
  const group = pair === undefined ? undefined : await readGroup(db, pair.group_id)
  if (pair === undefined || group === undefined) return addressOf(services, volume.az, volume.id)
  const writer = await writerOf(services, group, pair)
  if (writer.kind === 'refused') return writer
  if (writer.site !== volume.az) {
    return refused(
      `The disk is the standby copy of replication pair ${pair.id}; ${writer.site} has the production disk. Connect to the pair's id to follow it.`,
    )
  }
  return addressOf(services, volume.az, volume.id)
}

const NOT_SERVED: ReadonlySet<string> = new Set(['creating', 'error', 'deleting', 'error_deleting'])

/** The site that may write the pair, and whether a session does it. */
async function writerOf(
  services: DirectoryServices,
  group: ProtectionGroupRow,
  pair: ReplicationPairRow,
): Promise<
  | { readonly kind: 'writer'; readonly site: string; readonly session: boolean }
  | { readonly kind: 'refused'; readonly reason: string }
> {
  const plain = { kind: 'writer' as const, site: productionAz(group), session: false }
  if (pair.in_session === 0) return plain
  const record = await services.witness.record(group.id)
  if (record === null || record.state === 'closed') return plain
  if (record.state === 'frozen') {
    return refused('Neither site may write: the group is frozen until its sites agree again.')
  }
  return { kind: 'writer', site: record.writer, session: true }
}

function addressOf({ agents }: DirectoryServices, site: string, name: string): Location {
  const agent = agents.at(site)
  if (agent === null || !agents.heard(site)) {
    return refused(
      `Nothing is heard from ${site}, which has the right to write. If it is gone, fail the group over.`,
    )
  }
  const { nbd_unix: unix, nbd_tcp: tcp, nbd_tls: tls } = agent.report
  const address = tcp === null ? undefined : parseAddress(tcp)
  return {
    kind: 'served',
    export: name,
    site,
    unix,
    tcp: address === undefined ? null : { ...address, tls },
  }
}

const refused = (reason: string) => ({ kind: 'refused' as const, reason })
