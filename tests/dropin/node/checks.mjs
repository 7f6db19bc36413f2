// What every script here stands on: the SDK as anybody would set it up, and checks printed as JSON lines.
// No script knows whether it talks to the API itself or to something before it.
import assert from 'node:assert/strict'

import { ChatBotKit } from '@chatbotkit/sdk'

const { CBK_BASE_URL: baseUrl, CBK_SECRET: secret } = process.env

/** The official client; only its base URL and its secret are ours. */
export function client(options = {}) {
  return new ChatBotKit({ secret, baseUrl, ...options })
}

/** What the caller of this script gives it beside URL and secret. */
export const given = JSON.parse(process.env.CBK_GIVEN ?? '{}')

/** Run one check and print how it went: one line, with what was seen when it held. */
export async function check(name, body) {
  try {
    const seen = await body()
    print({ check: name, ok: true, seen: seen ?? null })
  } catch (error) {
    print({ check: name, ok: false, error: error.stack ?? String(error), code: error.code ?? null })
    process.exitCode = 1
  }
}

/** Print a line now, before the check it belongs to has ended: for whoever has to act in between. */
export function print(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}

/** The error that a call must end with, as the SDK shows it. */
export async function failure(call) {
  try {
    await call()
  } catch (error) {
    return { name: error.name, message: error.message, code: error.code }
  }
  assert.fail('the call did not fail')
}

/** Everything of a stream. */
export async function all(stream) {
  const events = []
  for await (const event of stream) {
    events.push(event)
  }
  return events
}
