import type { Bit } from '../bit.ts'

/** Servers and what describes them, and the protected instances made of two of them. */
export interface ServerTables {
  servers: ServerRow
  server_disks: ServerDiskRow
  keypairs: KeypairRow
  images: ImageRow
  tags: TagRow
  protected_instances: ProtectedInstanceRow
}

export interface ServerRow {
  /** UUID; also the server's name at its site's agent. */
  id: string
  project: string
  user_id: string
  name: string
  description: string | null
  /** The site that runs it. Never changes. */
  az: string
  vpc: string
  /** Name of the flavor, which is its id as well. */
  flavor: string
  /** The image that its root disk was made from; null: it boots from a disk that was there before. */
  image: string | null
  key_name: string | null
  /** See src/domain/server.ts. */
  status: string
  /** What is being done to it; null: nothing. Others are refused meanwhile. */
  task: string | null
  /** Of the definition that the agent was given last, or is to be given. Rises with each change. */
  generation: number
  /** `running`, `off`, `paused` or `unknown`: what the hypervisor said last, and when it became so there. */
  power: string
  power_at: number
  /**
   * JSON, see `ServerFault` of src/control/resources/servers.ts: why the status is an error, or why the last start or stop failed; null:
   * nothing wrong.
   */
  fault: string | null
  /** JSON object of strings. */
  metadata: string
  auto_recovery: Bit
  /** The protected instance that it belongs to; null: none. */
  instance: string | null
  /** First time that it ran. */
  launched_at: number | null
  created_at: number
  updated_at: number
}

/** A volume in a server. The volume's own row says the same in the form of the volume API; both change together. */
export interface ServerDiskRow {
  volume: string
  server: string
  project: string
  /** `/dev/vda` ...; unique in the server. */
  device: string
  /** Place in the boot order from 0; null: not booted from. */
  boot_index: number | null
  /** `attaching`, `attached` or `detaching`. The guest is to have it but in the last one. */
  state: string
  delete_with_server: Bit
  created_at: number
}

export interface KeypairRow {
  project: string
  user_id: string
  name: string
  /** One line as OpenSSH writes it. */
  public_key: string
  /** MD5 with colons, as clients of this API show it. */
  fingerprint: string
  created_at: number
}

/** Images of the region, the same for every project. */
export interface ImageRow {
  id: string
  name: string
  /** Name under which the agents know its bytes. */
  content: string
  os_version: string
  min_disk_gb: number
  min_memory_mb: number
  created_at: number
}

export interface TagRow {
  /** `server`, `volume`, `instance` ... */
  kind: string
  resource: string
  key: string
  project: string
  value: string
}

export interface ProtectedInstanceRow {
  /** UUID. */
  id: string
  project: string
  group_id: string
  name: string
  description: string | null
  /** See src/domain/protected-instance.ts. */
  status: string
  /** The servers in the group's source and target site; which of them is production is the group's `station`. */
  source_server: string
  target_server: string
  /**
   * The port that the server at the DR site shows; every other port of the two servers belongs to the production role and moves with
   * it. Nobody wears it between a failover and the reprotection. Null: that server was made without one.
   */
  spare_port: string | null
  /** Why the status is an error; null otherwise. */
  failure_detail: string | null
  created_at: number
  updated_at: number
}
