import type { Probe } from '#client/drills.ts'
import { usageError } from './usage.ts'

/* Probes as people type them, `[INSTANCE=]PROBE`:
 *
 *     boot                    the guest uses its address
 *     boot:READY              its console says this
 *     tcp:5432                the port accepts
 *     http:80/health          answers with 200 to 399
 *     http:80/health=204      answers with this status
 *     command:systemctl is-active nginx     the guest agent runs it, and it ends with 0
 *     none                    only that the server was started
 */

export const PROBE_HELP =
  '[instance=]probe: boot, boot:TEXT, tcp:PORT, http:PORT/PATH[=STATUS], command:WORDS, none; without an instance, for all others'

const INSTANCE = /^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\*)=(.*)$/is

/** By instance, `*` for all others. */
export function parseProbes(texts: readonly string[]): Record<string, Probe[]> {
  const found: Record<string, Probe[]> = {}
  for (const text of texts) {
    const [, instance = '*', probe = text] = INSTANCE.exec(text) ?? []
    const list = (found[instance.toLowerCase()] ??= [])
    if (probe !== 'none') list.push(parseProbe(probe))
  }
  return found
}

function parseProbe(text: string): Probe {
  const wrong = () => usageError(`${text} is no probe; give ${PROBE_HELP}`)
  const colon = text.indexOf(':')
  const kind = colon < 0 ? text : text.slice(0, colon)
  const rest = colon < 0 ? '' : text.slice(colon + 1)
  switch (kind) {
    case 'boot':
      return rest === '' ? { kind } : { kind, marker: rest }
    case 'tcp': {
      const port = portOf(rest)
      if (port === null) throw wrong()
      return { kind, port }
    }
    case 'http': {
      const [, digits = '', path = '', status] =
        /^(\d+)(\/[\x21-\x7e]*?)(?:=(\d{3}))?$/.exec(rest) ?? []
      const port = portOf(digits)
      if (port === null) throw wrong()
      return { kind, port, path, ...(status === undefined ? {} : { status: Number(status) }) }
    }
    case 'command': {
      const command = rest.split(' ').filter((word) => word !== '')
      if (command.length === 0) throw wrong()
      return { kind, command }
    }
    default:
      throw wrong()
  }
}

const portOf = (text: string): number | null =>
  /^\d{1,5}$/.test(text) && Number(text) > 0 && Number(text) < 65_536 ? Number(text) : null

export function probeText(probe: Probe): string {
  switch (probe.kind) {
    case 'boot':
      return probe.marker === undefined ? 'boot' : `boot:${probe.marker}`
    case 'tcp':
      return `tcp:${probe.port}`
    case 'http':
      return `http:${probe.port}${probe.path}${probe.status === undefined ? '' : `=${probe.status}`}`
    case 'command':
      return `command:${probe.command.join(' ')}`
  }
}
