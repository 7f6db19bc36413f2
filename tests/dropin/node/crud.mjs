// Create, fetch, list, update and delete, on every resource type that the SDK knows to do this with.
import assert from 'node:assert/strict'

import { check, client, failure } from './checks.mjs'

const sdk = client()

/** A nested collection as if it were a plain one. */
function below(collection, parentId) {
  const call =
    (name) =>
    (...args) =>
      collection[name](parentId, ...args)
  return Object.fromEntries(['list', 'fetch', 'create', 'update', 'delete'].map((name) => [name, call(name)]))
}

const bot = await sdk.bot.create({ name: 'Parent' })
const dataset = await sdk.dataset.create({ name: 'Parent' })
const skillset = await sdk.skillset.create({ name: 'Parent' })
const contact = await sdk.contact.create({ name: 'Parent' })
const conversation = await sdk.conversation.create({ botId: bot.id })
const user = await sdk.partner.user.create({ name: 'Parent', email: 'parent@example.com' })

const meta = { origin: 'drop-in', nested: { kept: true }, words: ['é', '世界', '"quoted"'] }
const named = { name: 'First é 世界', description: 'As it was made', meta }
const renamed = { name: 'Second', meta: { origin: 'changed' } }
const withBot = { ...named, botId: bot.id }
const kinds = sdk.integration

// Each row: the collection, what to create, what to change, and fields that never come back as sent.
const rows = {
  bot: [sdk.bot, { ...named, backstory: 'Helpful.\nShort.', model: 'sandbox-echo' }, renamed],
  dataset: [sdk.dataset, { ...named, recordMaxTokens: 512 }, renamed],
  'dataset/record': [below(sdk.dataset.record, dataset.id), { text: 'A record', meta }, { text: 'Another' }],
  skillset: [sdk.skillset, named, renamed],
  'skillset/ability': [
    below(sdk.skillset.ability, skillset.id),
    { ...named, instruction: '```fetch\nmethod: GET\n```' },
    renamed,
  ],
  contact: [sdk.contact, { ...named, email: 'ada@example.com', nick: 'Ada' }, renamed],
  conversation: [sdk.conversation, { ...withBot, contactId: contact.id }, renamed],
  'conversation/message': [
    below(sdk.conversation.message, conversation.id),
    { type: 'user', text: 'Hello\tyou\n', meta },
    { text: 'Goodbye' },
  ],
  file: [sdk.file, named, renamed],
  secret: [sdk.secret, { ...named, type: 'bearer', value: 'very-secret' }, renamed, ['value']],
  space: [sdk.space, { ...named, contactId: contact.id }, renamed],
  memory: [sdk.memory, { text: 'She likes tea', contactId: contact.id, meta }, { text: 'She likes coffee' }],
  blueprint: [sdk.blueprint, named, renamed],
  task: [sdk.task, { ...withBot, schedule: 'hourly' }, renamed],
  portal: [sdk.portal, { ...named, slug: 'front-door', config: { a: [1, 2.5, null] } }, renamed],
  policy: [sdk.policy, { ...named, type: 'retention', config: { days: 30 } }, renamed],
  'partner/user': [sdk.partner.user, { ...named, email: 'child@example.com' }, renamed],
  'partner/user/context': [below(sdk.partner.user.context, user.id), { ...named, payload: { a: 1 } }, renamed],
  'integration/widget': [kinds.widget, { ...withBot, title: 'Talk', stream: true }, renamed],
  'integration/slack': [kinds.slack, { ...withBot, botToken: 'xoxb-secret' }, renamed, ['botToken']],
  'integration/discord': [kinds.discord, { ...withBot, appId: '1', botToken: 'secret' }, renamed, ['botToken']],
  'integration/telegram': [kinds.telegram, { ...withBot, botToken: 'secret' }, renamed, ['botToken']],
  'integration/trigger': [kinds.trigger, { ...withBot, authenticate: true }, renamed],
  'integration/email': [kinds.email, withBot, renamed],
  'integration/sitemap': [kinds.sitemap, { ...named, url: 'https://example.com/s.xml?a=1&b=%20' }, renamed],
  'integration/notion': [kinds.notion, { ...named, token: 'secret' }, renamed, ['token']],
  'integration/support': [kinds.support, { ...withBot, email: 'help@example.com' }, renamed],
  'integration/extract': [kinds.extract, { ...withBot, schema: { type: 'object' } }, renamed],
  'integration/mcpserver': [kinds.mcpserver, { ...named, skillsetId: skillset.id }, renamed],
  'integration/twilio': [kinds.twilio, { ...withBot, authToken: 'secret' }, renamed, ['authToken']],
}

async function live(collection, fields, change, hidden = []) {
  const shown = Object.fromEntries(Object.entries(fields).filter(([name]) => !hidden.includes(name)))

  const { id } = await collection.create(fields)
  assert.equal(typeof id, 'string')

  const made = await collection.fetch(id)
  assert.equal(made.id, id)
  assert.equal(typeof made.createdAt, 'number')
  for (const [name, value] of Object.entries(shown)) {
    assert.deepEqual(made[name], value, name)
  }
  for (const name of hidden) {
    assert.notEqual(made[name], fields[name], name)
  }

  const listed = await collection.list({ order: 'desc', take: 100 })
  assert.deepEqual(
    listed.items.find((item) => item.id === id),
    made
  )

  assert.equal((await collection.update(id, change)).id, id)
  const changed = await collection.fetch(id)
  for (const [name, value] of Object.entries({ ...shown, ...change })) {
    assert.deepEqual(changed[name], value, name)
  }
  const relisted = await collection.list({ order: 'desc', take: 100 })
  assert.deepEqual(
    relisted.items.find((item) => item.id === id),
    changed
  )

  assert.equal((await collection.delete(id)).id, id)
  const gone = await failure(() => collection.fetch(id))
  assert.deepEqual([gone.name, gone.code], ['FetchError', 'NOT_FOUND'])
  const left = await collection.list({ order: 'desc', take: 100 })
  assert.equal(
    left.items.some((item) => item.id === id),
    false
  )
  return { id }
}

for (const [name, row] of Object.entries(rows)) {
  await check(name, () => live(...row))
}
