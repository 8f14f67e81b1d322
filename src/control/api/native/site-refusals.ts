import { isFault } from '#base/fault.ts'
import {
  refusalCode,
  SITE_BUSY,
  SITE_NEVER_SEEN,
  SITE_REFUSED,
  SITE_UNREACHABLE,
} from '#control/sites/client.ts'
import { refuse } from './errors.ts'

/* An agent's refusal as the caller's own: under the agent's code, with its words. */

const STATUS: Readonly<Record<string, 404 | 409>> = {
  DIVERGENCE_UNKNOWN: 404,
  SNAPSHOT_UNKNOWN: 404,
  SESSION_UNKNOWN: 404,
  RANGE_NOT_KEPT: 409,
  NOT_WRITER: 409,
}

/** What a handler throws instead of what the site client threw. */
export function siteRefusal(error: unknown): unknown {
  if (!isFault(error)) return error
  const text = (key: string): string => {
    const value = error.detail[key]
    return typeof value === 'string' ? value : ''
  }
  const code = refusalCode(error)
  if (isFault(error, SITE_REFUSED) && code !== null) {
    return refuse(STATUS[code] ?? 409, code, text('text'), text('hint'))
  }
  if (isFault(error, SITE_BUSY) && text('refusal') !== '') {
    return refuse(503, text('refusal'), text('text'), text('hint'))
  }
  if (isFault(error, SITE_UNREACHABLE) || isFault(error, SITE_NEVER_SEEN)) {
    return refuse(503, error.code, `${error.kind.text} (${text('site')})`, error.kind.hint)
  }
  return error
}

/** Of `act`, with the agent's refusals as the caller's. */
export async function atSite<T>(act: () => Promise<T>): Promise<T> {
  try {
    return await act()
  } catch (error) {
    throw siteRefusal(error)
  }
}
