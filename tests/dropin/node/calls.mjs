// Calls given from outside, one after another: what each came to, as the SDK shows it. Every check holds.
import { all, check, client, given } from './checks.mjs'

for (const { name, options, call, args = [], stream = false } of given.calls) {
  const sdk = client({ retries: 0, ...options })
  await check(name, async () => {
    const path = call.split('.')
    const method = path.pop()
    const owner = path.reduce((one, step) => one[step], sdk)
    try {
      const promise = owner[method](...args)
      return { value: stream ? await all(promise.stream()) : await promise }
    } catch (error) {
      return { error: { name: error.name, message: error.message, code: error.code } }
    }
  })
}
