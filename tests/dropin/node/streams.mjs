// Model runs, whole and as a stream.
import assert from 'node:assert/strict'

import { all, check, client, failure } from './checks.mjs'

const sdk = client({ retries: 0 })
const said = 'héllo 世界 🌍'
const types = (events) => events.map((event) => event.type)
const text = (events) =>
  events
    .filter((event) => event.type === 'token')
    .map((event) => event.data.token)
    .join('')

const bot = await sdk.bot.create({ name: 'Speaker' })

await check('a stateless run, streamed', async () => {
  const events = await all(sdk.conversation.complete(null, { messages: [{ type: 'user', text: said }] }).stream())
  const seen = types(events)
  assert.deepEqual(seen.slice(0, 3), ['completeBegin', 'ping', 'token'])
  assert.deepEqual(seen.slice(-4), ['usage', 'completeEnd', 'receiveResult', 'result'])
  const result = events.at(-1).data
  assert.ok(result.text.endsWith(said))
  assert.equal(text(events), result.text)
  assert.ok(result.usage.token > 0)
})

await check('a stateless run, awaited', async () => {
  const result = await sdk.conversation.complete(null, {
    model: { name: 'sandbox-echo', config: { temperature: 0.5 } },
    messages: [{ type: 'user', text: said }],
  })
  assert.ok(result.text.endsWith(said))
  assert.equal(result.end.reason, 'stop')
  assert.ok(result.usage.token > 0)
})

await check('a conversation, streamed', async () => {
  const { id } = await sdk.conversation.create({ botId: bot.id, messages: [{ type: 'user', text: 'Before' }] })
  const before = await sdk.conversation.message.list(id)
  const events = await all(sdk.conversation.complete(id, { text: said }).stream())
  assert.equal(events[0].type, 'sendResult')
  assert.equal(events.at(-1).type, 'result')
  const after = await sdk.conversation.message.list(id)
  assert.deepEqual(after.items.slice(0, before.items.length), before.items)
  assert.deepEqual(
    after.items.map((item) => [item.type, item.text]),
    [
      ['user', 'Before'],
      ['user', said],
      ['bot', text(events)],
    ]
  )
  assert.equal(after.items[1].id, events[0].data.id)
  assert.equal(after.items[2].id, events.at(-1).data.id)
})

await check('a conversation, awaited, in two steps', async () => {
  const { id } = await sdk.conversation.create({ botId: bot.id })
  const sent = await sdk.conversation.send(id, { text: said })
  const received = await sdk.conversation.receive(id, {})
  assert.ok(received.text.endsWith(said))
  const { items } = await sdk.conversation.message.list(id)
  assert.deepEqual(
    items.map((item) => item.id),
    [sent.id, received.id]
  )
})

await check('a long stream arrives whole and in order', async () => {
  const messages = [{ type: 'user', text: '!tokens 5000' }]
  const events = await all(sdk.conversation.complete(null, { messages }).stream())
  const words = text(events).split(' ')
  assert.equal(words.length, 5000)
  assert.equal(words.at(-1), 'w4999')
})

await check('what the model wrote is there as soon as the stream ends', async () => {
  const before = await sdk.bot.list()
  const messages = [{ type: 'user', text: '!create bot Written by the model' }]
  await all(sdk.conversation.complete(null, { messages }).stream())
  const after = await sdk.bot.list()
  assert.deepEqual(after.items.slice(1), before.items)
  assert.equal(after.items[0].name, 'Written by the model')
})

await check('a failure in the middle is an event', async () => {
  const messages = [{ type: 'user', text: '!error' }]
  const events = await all(sdk.conversation.complete(null, { messages }).stream())
  const { type, data } = events.at(-1)
  assert.deepEqual([type, data.message, data.code], ['error', 'The model failed', 'INTERNAL_SERVER_ERROR'])
  assert.ok(types(events).includes('token'))
})

await check('the same failure, awaited, is an error', async () => {
  const messages = [{ type: 'user', text: '!error' }]
  const { message, code } = await failure(() => sdk.conversation.complete(null, { messages }))
  assert.deepEqual([message, code], ['The model failed', 'INTERNAL_SERVER_ERROR'])
})

await check('a refusal before the first event is an error', async () => {
  const run = sdk.conversation.complete(null, { messages: [{ type: 'nobody', text: 'x' }] })
  const { message, code } = await failure(() => all(run.stream()))
  assert.equal(code, 'BAD_REQUEST')
  assert.match(message, /type/)
})

await check('a session token is shown once and is of this conversation', async () => {
  const { id } = await sdk.conversation.create({ botId: bot.id })
  const session = await sdk.conversation.session.create(id, { durationInSeconds: 60 })
  assert.equal(session.token.split('.').length, 3)
  assert.ok(session.expiresAt > 0)
})
