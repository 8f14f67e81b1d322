/** Servers that are rows only, for tests of lists and for measuring them. */
import { newId } from '#base/ids.ts'
import {
  defaultSecurityGroupId,
  defaultSubnetId,
  defaultVpcId,
} from '#control/resources/networks.ts'
import type { Store } from '#control/store/store.ts'
import type { ServerRow } from '#control/store/tables/servers.ts'

/** Numbers go on from `first`, so that names and addresses are different. Puts `count` servers into a project that nobody made, each with a disk and a NIC in the project's default network. */
export async function insertServers(
  store: Store,
  project: string,
  count: number,
  image: string,
  first = 0,
): Promise<void> {
  const base: Omit<ServerRow, 'id' | 'name' | 'created_at'> = {
    project,
    user_id: 'u',
    description: null,
    az: 'az1',
    vpc: defaultVpcId(project),
    flavor: 't2.micro',
    image,
    key_name: null,
    status: 'active',
    task: null,
    generation: 1,
    power: 'running',
    power_at: 1,
    fault: null,
    metadata: '{"a":"b"}',
    auto_recovery: 0,
    instance: null,
    launched_at: 1,
    updated_at: 1,
  }
  await store.write(async (tx) => {
    for (let at = first; at < first + count; at++) {
      const id = newId()
      const name = `server-${String(at).padStart(4, '0')}`
      await tx
        .insertInto('servers')
        .values({ ...base, id, name, created_at: at })
        .execute()
      const volume = newId()
      await tx
        .insertInto('volumes')
        .values({
          id: volume,
          project,
          name,
          description: null,
          size_gb: 1,
          volume_type: 'SSD',
          az: 'az1',
          status: 'in-use',
          metadata: '{}',
          bootable: 1,
          multiattach: 0,
          attachments: '[]',
          pair: null,
          image,
          user_id: 'u',
          created_at: 1,
          updated_at: 1,
        })
        .execute()
      await tx
        .insertInto('server_disks')
        .values({
          volume,
          server: id,
          project,
          device: '/dev/vda',
          boot_index: 0,
          state: 'attached',
          delete_with_server: 1,
          created_at: 1,
        })
        .execute()
      const [high, low] = [at >> 8, at & 255]
      await tx
        .insertInto('ports')
        .values({
          id: newId(),
          project,
          name: '',
          subnet: defaultSubnetId(project),
          mac: `fa:16:3e:${project.slice(0, 2)}:${hex(high)}:${hex(low)}`,
          address: `192.168.${4 + high}.${low}`,
          server: id,
          place: 0,
          security_groups: JSON.stringify([defaultSecurityGroupId(project)]),
          delete_with_server: 1,
          created_at: 1,
        })
        .execute()
    }
  })
}

const hex = (byte: number): string => byte.toString(16).padStart(2, '0')
