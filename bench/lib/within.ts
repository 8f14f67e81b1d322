/**
 * What `work` gives, or after `limitMs` an error that says what was waited for and how things stood: a benchmark that hangs tells nothing. The work
 * itself goes on, its later failure is nobody's; the caller ends what it started.
 */
export async function within<T>(
  limitMs: number,
  what: string,
  work: Promise<T>,
  state: () => string | Promise<string>,
): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<'late'>((resolve) => {
    timer = setTimeout(() => resolve('late'), limitMs)
  })
  try {
    const first = await Promise.race([work.then((value) => ({ value })), late])
    if (first !== 'late') return first.value
  } finally {
    clearTimeout(timer)
  }
  work.catch(() => undefined)
  const text = await Promise.resolve(state()).catch(String)
  throw new Error(`${what}: not within ${limitMs} ms; ${text}`)
}
