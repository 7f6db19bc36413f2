// GraphQL through the SDK: queries, mutations, variables, and failures that come with status 200.
import assert from 'node:assert/strict'

import { check, client } from './checks.mjs'

const sdk = client()
const call = (query, rest = {}) => sdk.graphql.call({ query, ...rest })
const NAMES = '{ bots { edges { node { name } } } }'
const names = async () => (await call(NAMES)).data.bots.edges.map((edge) => edge.node.name)

const made = []
await check('a mutation with variables', async () => {
  const query = 'mutation Make($input: BotCreateRequest!) { createBot(input: $input) { id } }'
  const { data, errors } = await call(query, { variables: { input: { name: 'Ada é' } }, operationName: 'Make' })
  assert.equal(errors, undefined)
  made.push(data.createBot.id)
})

await check('a query sees it', async () => {
  assert.deepEqual(await names(), ['Ada é'])
})

await check('REST sees it too', async () => {
  assert.equal((await sdk.bot.fetch(made[0])).name, 'Ada é')
  assert.deepEqual((await sdk.bot.list()).items.map((item) => item.id), made)
})

await check('a mutation is seen by REST at once', async () => {
  const query = 'mutation($id: ID!, $input: BotUpdateRequest!) { updateBot(botId: $id, input: $input) { id } }'
  const { errors } = await call(query, { variables: { id: made[0], input: { name: 'Grace' } } })
  assert.equal(errors, undefined)
  assert.equal((await sdk.bot.fetch(made[0])).name, 'Grace')
  assert.deepEqual((await sdk.bot.list()).items.map((item) => item.name), ['Grace'])
})

await check('one of several operations', async () => {
  const query = `
    # mutation in a comment
    query Names ${NAMES}
    mutation Delete($id: ID!) { deleteBot(botId: $id) { id } }`
  const { data } = await call(query, { operationName: 'Names' })
  assert.equal(data.bots.edges.length, 1)
  await call(query, { operationName: 'Delete', variables: { id: made[0] } })
  assert.deepEqual(await names(), [])
})

await check('failures come in the answer', async () => {
  const { errors } = await call('{ nothing }')
  assert.match(errors[0].message, /nothing/)
  const missing = await call('{ bot(botId: "bot_none") { id } }')
  assert.ok(missing.errors[0].message.length > 0)
})
