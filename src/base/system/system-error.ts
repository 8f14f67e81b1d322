import { getSystemErrorMap } from 'node:util'

/** What Node makes of a system call that has failed: `errno` as C has it, positive. */
export function systemError(call: string, errno: number): NodeJS.ErrnoException {
  const [code, text] = getSystemErrorMap().get(-errno) ?? [`E${errno}`, 'unknown error']
  return Object.assign(new Error(`${code}: ${text}, ${call}`), {
    code,
    errno: -errno,
    syscall: call,
  })
}
