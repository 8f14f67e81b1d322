import type { ServerDefinition } from '#wire/site/servers.ts'
import type { GuestDevice, GuestDeviceName, GuestState } from './driver.ts'

/* What a running guest has too much, and what it lacks. Pure. */

/** A NIC with another MAC is another NIC, also of the same port. */
export function surplusOf({ disks, nics }: ServerDefinition, has: GuestState): GuestDeviceName[] {
  return [
    ...has.disks
      .filter((volume) => !disks.some((disk) => disk.volume === volume))
      .map((volume) => ({ kind: 'disk' as const, volume })),
    ...has.nics
      .filter(({ port, mac }) => !nics.some((nic) => nic.port === port && nic.mac === mac))
      .map(({ port }) => ({ kind: 'nic' as const, port })),
  ]
}

export function missingOf({ disks, nics }: ServerDefinition, has: GuestState): GuestDevice[] {
  return [
    ...disks
      .filter(({ volume }) => !has.disks.includes(volume))
      .map((disk) => ({ kind: 'disk' as const, disk })),
    ...nics
      .filter((nic) => !has.nics.some(({ port }) => port === nic.port))
      .map((nic) => ({ kind: 'nic' as const, nic })),
  ]
}
