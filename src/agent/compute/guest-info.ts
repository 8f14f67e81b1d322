import type { ServerBrief, ServerDefinition, ServerInfo } from '#wire/site/servers.ts'
import type { GuestState } from './driver.ts'

/** What is told about a guest: disks and NICs in the order of the definition, then what the definition does not have any more. */
export function guestInfo(
  brief: ServerBrief,
  definition: ServerDefinition,
  { power, disks, nics, releasing }: GuestState,
  /** Names of devices by volume. */
  devices: ReadonlyMap<string, string>,
): ServerInfo {
  const defined = definition.disks.map(({ volume }) => volume)
  const wired = definition.nics.map(({ port, mac }) => ({ port, mac }))
  const volumes = power === 'off' ? defined : inOrder(disks, (one) => defined.indexOf(one))
  return {
    ...brief,
    disks: volumes.map((volume) => ({ volume, device: devices.get(volume) ?? '' })),
    nics:
      power === 'off'
        ? wired
        : inOrder(nics, ({ port }) => wired.findIndex((one) => one.port === port)),
    releasing: [...releasing],
  }
}

/** Those without a place come last. */
const inOrder = <T>(all: readonly T[], placeOf: (one: T) => number): T[] => {
  const place = (one: T) => (placeOf(one) < 0 ? all.length + 1 : placeOf(one))
  return [...all].sort((a, b) => place(a) - place(b))
}
